"""What the dashboard and the alert rules ask for is what the services say, on a stack that has done something."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml

from tests.journeys.stacks import Stack, until

DEPLOY = Path(__file__).parents[2] / "deploy"
_NAME = re.compile(r"\b(?:banksman|process)_[a-z_]+")


def said(stack: Stack, name: str) -> str:
    answer = httpx.get(stack.facts["metrics_urls"][name], trust_env=False, timeout=30)
    assert answer.status_code == 200
    return answer.text


def asked_by_rules() -> list[str]:
    found: Any = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    return [rule["expr"] for group in found["groups"] for rule in group["rules"]]


def asked_by_dashboard() -> list[str]:
    found: Any = json.loads((DEPLOY / "grafana/banksman.json").read_text())
    return [target["expr"] for panel in found["panels"] for target in panel.get("targets", ())]


@pytest.fixture
def busy(calm: Stack) -> Stack:
    """The calm stack, after one approved run whose mail went out."""
    program, ana = calm.program(), calm.reviewer()
    run = program.submit("clerk", "watched")
    [request] = ana.asked(run["id"])
    until(
        lambda: 'banksman_send_seconds_count{channel="email",outcome="sent"}' in said(calm, "notifier"), what="a mail"
    )
    ana.decide(request, "approve")
    program.ended(run["id"])
    return calm


def test_every_number_that_the_dashboard_and_the_rules_ask_for_is_served(busy: Stack) -> None:
    texts = {name: said(busy, name) for name in busy.facts["metrics_urls"]}
    served = {found for text in texts.values() for found in re.findall(r"^([a-z_]+)(?:\{| )", text, re.MULTILINE)}

    for expression in asked_by_rules() + asked_by_dashboard():
        names = set(_NAME.findall(expression))
        assert names, expression
        assert names <= served, f"{names - served} in {expression}"


def test_a_worker_times_segments_models_and_tools_by_names_that_it_was_started_with(busy: Stack) -> None:
    text = said(busy, "worker-1")

    for series in (
        'banksman_segment_seconds_count{agent="clerk"}',
        'banksman_model_request_seconds_count{agent="clerk"}',
        'banksman_tool_seconds_count{agent="clerk",tool="append"}',
        'banksman_pulse_age_seconds{pulse="loop"}',
    ):
        assert series in text
    labels = cast("list[str]", re.findall(r'agent="([^"]*)"', text))
    assert set(labels) <= {name for [name] in busy.query("SELECT name FROM agents")}
    assert "run_" not in text
