"""What a process counts of itself: bounded labels, and an answer beside its health."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from banksman import metrics
from banksman.embedded import ports
from banksman.health import Health


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    metrics.listed({"refunds": ["refund"]})
    yield
    metrics.listed({})


def count(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_name_that_nobody_listed_makes_no_series_of_its_own() -> None:
    before = count("banksman_tool_seconds_count", agent="refunds", tool="other")

    for number in range(3):
        with metrics.tool("refunds", f"tool-{number}"):
            pass
        with metrics.segment(f"agent-{number}", again=False):
            pass

    assert count("banksman_tool_seconds_count", agent="refunds", tool="other") == before + 3
    assert b"tool-1" not in metrics.text()
    assert b"agent-1" not in metrics.text()


def test_a_segment_is_live_for_its_length_and_counted_when_it_comes_again() -> None:
    repeated = count("banksman_segments_repeated_total")

    with metrics.segment("refunds", again=True):
        assert count("banksman_segments_live") == 1

    assert count("banksman_segments_live") == 0
    assert count("banksman_segments_repeated_total") == repeated + 1
    assert count("banksman_segment_seconds_count", agent="refunds") >= 1


def test_numbers_are_served_beside_health_and_a_process_that_stands_still_says_so() -> None:
    port = ports.free()
    health = Health("127.0.0.1", port, lambda: {"loop": time.monotonic() - 90}, limit=30)
    try:
        well, numbers = (
            httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=30)
            for path in ("/healthz", "/metrics")
        )
    finally:
        health.close()

    assert (well.status_code, well.json()["alive"]) == (503, False)
    assert numbers.status_code == 200
    [age] = [line for line in numbers.text.splitlines() if line.startswith('banksman_pulse_age_seconds{pulse="loop"}')]
    assert float(age.split()[1]) >= 90
