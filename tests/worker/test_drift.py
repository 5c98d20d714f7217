"""While a call waits, the world may change under it: then it is asked again, and the difference is shown. What has not
changed, or asks for no more than it did, voids nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai import Agent

from banksman import ledger
from banksman.ledger import audit, requests
from banksman.policy import Policy
from banksman.records import Request
from banksman.states import RequestState, RunStatus, Tier
from banksman_gateway import card
from banksman_worker import agents as listing
from banksman_worker.agents import Listed
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_operands import writes_and_runs
from tests.worker.test_segment import a_site, agent_calling

CALL = ("pay", {"amount": 5})


def shown(here: Site, request: Request) -> str:
    """What the page says has changed, line by line."""
    with ledger.transaction(here.gateway) as conn:
        found = card.read(conn, request.id, here.reviewers[0], "session", here.pen.marks)
    return "\n".join(
        f"{block.label}\n" + "\n".join(line.mark + line.text for line in block.lines if line.mark in "+-")
        for block in found.changes
    )


def asked_again(here: Site, run_id: Any, old: Request, effects: list[Any], words: str) -> Request:
    """The one request that replaces the old one, with nothing done."""
    run = here.advance(run_id)
    assert effects == []
    assert run.status is RunStatus.WAITING
    [again] = here.open(run_id)
    assert words in json.loads(again.context)["why_again"]
    with ledger.transaction(here.gateway) as conn:
        [refused] = [event for event in audit.of_run(conn, run_id) if event.action == "execution.refused"]
        [before] = [item for item in requests.of_run(conn, run_id) if item.id == old.id]
    assert refused.request_id == old.id
    assert words in str(refused.body["why"])
    assert before.state is RequestState.SUPERSEDED
    return again


def other_version(effects: list[Any]) -> Listed:
    return Listed(a_payer(effects), version="2")


def a_payer(effects: list[Any], express: bool | None = None, describe: str | None = None) -> Agent[None, str]:
    agent = agent_calling(CALL)
    if express is None:

        @agent.tool_plain(requires_approval=True, docstring_format="google")
        def pay(amount: int, currency: str = "EUR") -> str:
            effects.append((amount, currency))
            return "paid"

        pay.__doc__ = describe
        return agent

    @agent.tool_plain(requires_approval=True, name="pay")
    def pay_fast(amount: int, currency: str = "EUR", express: bool = express) -> str:
        effects.append((amount, currency, express))
        return "paid"

    del pay_fast
    return agent


def with_express(effects: list[Any]) -> Agent[None, str]:
    return a_payer(effects, express=True)


@pytest.mark.parametrize(
    ("make", "words", "difference"),
    [
        (other_version, "the agent's version", '-"1"\n+"2"'),
        (with_express, "the tool's schema", '+    "express": {'),
        (with_express, "arguments", '+  "express": true'),
    ],
    ids=["version", "schema", "default argument"],
)
def test_a_change_under_a_parked_call_is_asked_again_with_the_difference(
    site: SiteMaker, make: Callable[[list[Any]], Any], words: str, difference: str
) -> None:
    effects: list[Any] = []
    before = site({"payer": a_payer(effects)})
    run_id, [request] = before.waiting("payer")
    before.vote(request, "approve")

    after = site({"payer": make(effects)})
    again = asked_again(after, run_id, request, effects, words)

    assert difference in shown(after, again)
    after.vote(again, "approve")
    assert after.advance(run_id).status is RunStatus.FINISHED
    assert len(effects) == 1


def test_a_file_that_changed_under_a_parked_command_is_asked_again_with_the_difference(site: SiteMaker) -> None:
    here = site({"writer": writes_and_runs()})
    run_id, [writing, running] = here.waiting("writer")
    here.vote(writing, "approve", arguments={"content": "echo goodbye"})
    here.vote(running, "approve")

    again = asked_again(here, run_id, running, [], "a file that it refers to")

    assert "-echo hello\n+echo goodbye" in shown(here, again)


@pytest.mark.parametrize(
    ("then", "now", "again"),
    [
        (Policy(tier=Tier.LOW), Policy(tier=Tier.MEDIUM), "tier medium instead of low"),
        (Policy(), Policy(tiers={"pay": Tier.HIGH}), "tier high instead of medium"),
        (Policy(tier=Tier.MEDIUM), Policy(tier=Tier.MEDIUM), None),
        (Policy(tier=Tier.MEDIUM), Policy(tier=Tier.LOW), None),
        (Policy(), Policy(allow_tools=["pay"]), None),
    ],
)
def test_only_a_stricter_policy_voids_a_decision(site: SiteMaker, then: Policy, now: Policy, again: str | None) -> None:
    before = a_site(site, CALL, policy=then)
    run_id, [request] = before.waiting("payer")
    before.vote(request, "approve")
    after = a_site(site, CALL, policy=now)

    if again is not None:
        asked_again(after, run_id, request, after.effects, again)
        return
    assert after.advance(run_id).status is RunStatus.FINISHED
    assert after.effects == [("pay", 5, "EUR")]


def test_a_rolling_deploy_of_the_same_agents_voids_nothing(site: SiteMaker) -> None:
    effects: list[Any] = []
    old, new = (site({"payer": Listed(a_payer(effects), version="7")}) for _ in range(2))
    for first, then in ((old, new), (new, old)):
        run_id, [request] = first.waiting("payer")
        first.vote(request, "approve")
        assert then.advance(run_id).status is RunStatus.FINISHED
    assert effects == [(5, "EUR"), (5, "EUR")]


def test_a_word_of_description_is_no_change(site: SiteMaker) -> None:
    effects: list[Any] = []
    before = site({"payer": a_payer(effects)})
    run_id, [request] = before.waiting("payer")
    before.vote(request, "approve")
    changed = listing.loaded("tests", "payer", a_payer(effects, describe="Pay somebody."))
    after = site({"payer": replace(changed)})

    assert after.advance(run_id).status is RunStatus.FINISHED
