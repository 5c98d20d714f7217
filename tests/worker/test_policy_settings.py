"""What an operator says of policy in the environment, and what becomes of it."""

from __future__ import annotations

import pytest

from banksman import settings
from banksman.errors import ConfigurationError
from banksman.policy import Call, judge
from banksman.settings import WorkerSettings
from banksman.standing_policy import of_settings
from banksman.states import Tier

NEEDED = {
    "BANKSMAN_DATABASE_URL": "postgresql://w:w@127.0.0.1/b",
    "BANKSMAN_BROKER_URL": "redis://127.0.0.1:6379/0",
    "BANKSMAN_AGENTS": "a:b",
    "BANKSMAN_VERIFY_KEYS": "k:current:x",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("tool", "tier", "approvals"), [("refund", Tier.LOW, 1), ("execute", Tier.HIGH, 2), ("other", Tier.MEDIUM, 1)]
)
def test_an_operator_sets_a_tools_tier_and_high_takes_two_people(
    monkeypatch: pytest.MonkeyPatch, tool: str, tier: Tier, approvals: int
) -> None:
    monkeypatch.setenv("BANKSMAN_TIERS", "refund=low, execute = high")

    judgement = judge(of_settings(settings.read(WorkerSettings)), Call("a", tool, {}))

    assert judgement.requirement is not None
    assert judgement.requirement.tier is tier
    assert judgement.requirement.approvals == approvals


@pytest.mark.parametrize("wrong", ["refund", "refund=lowest", "=low", "a=low,a=high", "a=low=high"])
def test_a_tier_that_says_nothing_clear_stops_the_start_up(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("BANKSMAN_TIERS", wrong)

    with pytest.raises(ConfigurationError, match="BANKSMAN_TIERS: is not a list like"):
        settings.read(WorkerSettings)
