"""A call whose text could deceive, on its way through the worker: frozen at the highest tier, and never let through."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai import Agent

from banksman import digest, ledger, rule_file
from banksman.policy import Policy
from banksman.signing import Verifier
from banksman.states import RunStatus, Tier
from banksman_worker.deep import deep_agent
from banksman_worker.rulebook import Rulebook
from banksman_worker.scripted import Call, scripted_model
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_operands import tell
from tests.worker.test_segment import agent_calling

ASKED = '[[rule]]\nname = "mails"\ntool = "send"\nthen = "ask"\ntier = "low"\n'
ALLOWED = '[[rule]]\nname = "mails"\ntool = "send"\nthen = "allow"\n'


def a_site(site: SiteMaker, verifier: Verifier, rules: str, text: str, effects: list[str]) -> Site:
    agent: Agent[None, str] = agent_calling(("send", {"body": text}))

    @agent.tool_plain
    def send(body: str) -> str:
        effects.append(body)
        return "sent"

    del send
    book = Rulebook(verifier, rule_file.read(rules))
    made = site({"sender": agent}, policy=Policy(rules=book))
    with ledger.transaction(made.worker.pool) as conn:
        book.refresh(conn)
    return made


@pytest.mark.parametrize("rules", [ASKED, ALLOWED])
def test_a_call_that_hides_something_is_frozen_at_the_highest_tier_with_the_reason(
    site: SiteMaker, verifier: Verifier, rules: str
) -> None:
    effects: list[str] = []
    here = a_site(site, verifier, rules, "Pay Bo\u200b.", effects)
    run_id = here.submit("sender")

    assert here.advance(run_id).status is RunStatus.WAITING

    [request] = here.open(run_id)
    frozen: Any = digest.parse(request.action)["requirement"]
    assert (request.tier, frozen["tier"], frozen["approvals"]) == (Tier.HIGH, "high", 2)
    assert frozen["because"].startswith("Raised to tier high: hidden characters in `body`. ")
    assert effects == []


def test_a_script_that_hides_something_is_asked_about_at_the_highest_tier(site: SiteMaker, verifier: Verifier) -> None:
    writes = ("write_file", {"path": "/x.sh", "content": "echo \u202eolleh"})
    book = Rulebook(verifier, rule_file.read('[[rule]]\nname = "all"\ntool = "*"\nthen = "ask"\ntier = "low"\n'))
    model = scripted_model(lambda _: [Call(*writes), Call("execute", {"command": "sh x.sh"})], tell, name="scripted")
    agent: Any = deep_agent(model=model, interrupt_on={"write_file": True, "execute": True})
    here = site({"writer": agent}, policy=Policy(rules=book))
    with ledger.transaction(here.worker.pool) as conn:
        book.refresh(conn)
    run_id = here.submit("writer")
    here.advance(run_id)

    [command] = [request for request in here.open(run_id) if request.tool == "execute"]

    assert command.tier is Tier.HIGH
    frozen: Any = digest.parse(command.action)["requirement"]
    assert "turned writing in a file that it refers to" in frozen["because"]


def test_what_a_reviewer_hides_in_an_edit_is_asked_at_the_highest_tier(site: SiteMaker, verifier: Verifier) -> None:
    effects: list[str] = []
    here = a_site(site, verifier, ASKED, "Pay Bo.", effects)
    run_id = here.submit("sender")
    here.advance(run_id)
    [request] = here.open(run_id)
    assert request.tier is Tier.LOW

    here.vote(request, "approve", arguments={"body": "Pay \u202eBo."})

    assert here.advance(run_id).status is RunStatus.WAITING
    [again] = here.open(run_id)
    assert again.tier is Tier.HIGH
    assert "tier high instead of low" in again.context.decode()
    assert effects == []
