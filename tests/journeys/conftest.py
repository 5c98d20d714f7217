"""Two stacks for the stories: one that nobody hurts, and one whose processes are killed and come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.stacks import Stack

QUICK = {"BANKSMAN_LEASE_SECONDS": "2", "BANKSMAN_SWEEP_SECONDS": "0.2", "BANKSMAN_REDISPATCH_SECONDS": "2"}
"""So that a lost worker or message is noticed within the patience of a test."""


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is only used."""
    settings = {"BANKSMAN_ALLOW_WRITES_BELOW": "/workspace", "BANKSMAN_TIERS": "issue_refund=low,sign_off=high"}
    with Stack(tmp_path_factory.mktemp("calm") / "data", settings=settings) as stack:
        yield stack
        assert stack.refused() == []


@pytest.fixture(scope="session")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two workers. A story that hurts it leaves it as it was: everything up."""
    settings = QUICK | {"BANKSMAN_ALLOW_WRITES_BELOW": "/workspace"}
    with Stack(tmp_path_factory.mktemp("rough") / "data", workers=2, settings=settings) as stack:
        yield stack
        assert stack.refused() == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every story is a journey: `-m "not journey"` leaves them out."""
    for item in items:
        if "journeys" in item.path.parts:
            item.add_marker(pytest.mark.journey)
