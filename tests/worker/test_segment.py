"""A run from its first segment to its last, by the functions under the tasks, with decisions made by real votes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, SecretStr
from pydantic_ai import Agent, ApprovalRequired, CallDeferred, RunContext, Tool
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman import ledger
from banksman.errors import AlreadyDecided, Changed, InvalidInput, NotAllowed
from banksman.ledger import audit, executions, snapshots
from banksman.policy import Policy
from banksman.states import Kind, RequestState, RunStatus
from banksman_worker.asking import questions
from tests.worker.conftest import Site, SiteMaker


def returns(messages: list[ModelMessage]) -> list[ToolReturnPart]:
    return [
        part
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]


def agent_calling(*calls: tuple[str, dict[str, Any]]) -> Agent[None, str]:
    """An agent whose model makes these calls in one turn, then says what came back."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done = returns(messages)
        if done:
            return ModelResponse([TextPart(json.dumps([[item.tool_name, item.model_response_str()] for item in done]))])
        parts = [ToolCallPart(name, arguments, tool_call_id=f"c{i}") for i, (name, arguments) in enumerate(calls)]
        return ModelResponse([TextPart("I will do it."), *parts])

    return Agent(FunctionModel(answer))


def with_tools(agent: Agent[None, str], effects: list[Any]) -> Agent[None, str]:
    @agent.tool_plain(requires_approval=True)
    def pay(amount: int, currency: str = "EUR") -> str:
        effects.append(("pay", amount, currency))
        return f"paid {amount} {currency}"

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def look(what: str) -> str:
        effects.append(("look", what))
        return f"saw {what}"

    @agent.tool_plain
    def send(to: str) -> str:
        effects.append(("send", to))
        return f"sent to {to}"

    del pay, look, send
    return agent


def a_site(site: SiteMaker, *calls: tuple[str, dict[str, Any]], **more: Any) -> Site:
    effects: list[Any] = []
    made = site({"payer": with_tools(agent_calling(*calls), effects)}, **more)
    made.effects = effects
    return made


def test_an_approved_call_runs_once_with_its_defaults_shown(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": "5"}))
    run_id, [request] = here.waiting("payer")
    assert here.arguments(request) == {"amount": 5, "currency": "EUR"}
    assert here.effects == []

    run = here.decide_all(run_id, "approve")

    assert run.status is RunStatus.FINISHED
    assert here.effects == [("pay", 5, "EUR")]
    assert json.loads(run.output) == [["pay", "paid 5 EUR"]]


def test_a_harmless_tool_that_its_author_flags_is_asked_about(site: SiteMaker) -> None:
    agent, seen = agent_calling(("peek", {"at": "it"})), list[str]()

    @agent.tool_plain(requires_approval=True, metadata={"banksman": "harmless"})
    def peek(at: str) -> str:
        seen.append(at)
        return "seen"

    del peek
    here = site({"peeker": agent})

    _, [request] = here.waiting("peeker")

    assert (request.tool, seen) == ("peek", [])


def test_a_denied_call_does_not_run_and_the_model_reads_why(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")

    here.vote(request, "deny", reason="Too early in the month.")
    run = here.advance(run_id)

    assert here.effects == []
    assert json.loads(run.output) == [["pay", "Too early in the month."]]


def test_an_edited_call_runs_as_edited_and_the_model_is_told(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": 500}))
    run_id, [request] = here.waiting("payer")

    outcome = here.vote(request, "approve", arguments={"amount": 50})
    run = here.advance(run_id)

    assert outcome.request.revision == 2
    assert here.effects == [("pay", 50, "EUR")]
    [[_, told]] = json.loads(run.output)
    assert told.startswith("paid 50 EUR")
    assert "changed the arguments" in told


def test_edited_arguments_that_do_not_fit_the_tool_are_refused(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    _, [request] = here.waiting("payer")

    with pytest.raises(InvalidInput, match="amount"):
        here.vote(request, "approve", arguments={"amount": "many"})

    assert here.open(request.run_id)[0].revision == 1


def test_a_mixed_turn_runs_harmless_calls_at_once_and_the_rest_in_the_models_order(site: SiteMaker) -> None:
    here = a_site(
        site,
        ("look", {"what": "a"}),
        ("pay", {"amount": 1}),
        ("send", {"to": "b"}),
        ("look", {"what": "c"}),
        ("pay", {"amount": 2}),
    )
    run_id, requests = here.waiting("payer")
    assert sorted(here.effects) == [("look", "a"), ("look", "c")]
    assert [item.tool for item in requests] == ["pay", "send", "pay"]

    for request in requests[:2]:
        assert here.vote(request, "approve").resume is None
    last = here.vote(requests[2], "approve")
    run = here.advance(run_id)

    assert last.resume == (run_id, 1)
    assert here.effects[2:] == [("pay", 1, "EUR"), ("send", "b"), ("pay", 2, "EUR")]
    assert [name for name, _ in json.loads(run.output)] == ["look", "pay", "send", "look", "pay"]


def test_a_segment_that_comes_twice_changes_nothing(site: SiteMaker) -> None:
    from banksman_worker import segment

    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    here.advance(run_id)

    for number in (0, 1, 2):
        segment.advance(here.worker, run_id, number)

    assert here.effects == [("pay", 5, "EUR")]
    assert here.run(run_id).status is RunStatus.FINISHED


def test_what_was_shown_must_be_what_is_asked(site: SiteMaker) -> None:
    from dataclasses import replace

    here = a_site(site, ("pay", {"amount": 5}))
    _, [request] = here.waiting("payer")

    with pytest.raises(Changed) as stale:
        here.vote(replace(request, digest=b"\x00" * 32), "approve")
    here.vote(request, "approve")
    with pytest.raises(AlreadyDecided) as late:
        here.vote(request, "deny", by=1)

    assert stale.value.current["changed"] == "digest"
    assert "ana@example.org" in str(late.value)
    assert late.value.current["state"] == "approved"


def test_the_requester_does_not_count(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id = here.submit("payer", requester=here.reviewers[0])
    here.advance(run_id)
    [request] = here.open(run_id)

    with pytest.raises(NotAllowed, match="asked for this run"):
        here.vote(request, "approve")
    here.vote(request, "approve", by=1)

    assert here.advance(run_id).status is RunStatus.FINISHED


def test_a_disabled_voter_no_longer_counts_when_the_call_is_to_start(
    site: SiteMaker, gateway_pool: ledger.Pool
) -> None:
    from banksman.ledger import staff

    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    with ledger.transaction(gateway_pool) as conn:
        staff.disable(conn, here.reviewers[0].id)

    run = here.advance(run_id)

    assert here.effects == []
    assert run.status is RunStatus.WAITING
    [again] = here.open(run_id)
    assert "no longer counts" in json.loads(again.context)["why_again"]


def test_policy_may_allow_a_tool_by_name(site: SiteMaker) -> None:
    here = a_site(site, ("send", {"to": "b"}), policy=Policy(allow_tools=["send"]))

    run = here.advance(here.submit("payer"))

    assert run.status is RunStatus.FINISHED
    assert here.effects == [("send", "b")]


def test_a_question_is_answered_and_the_answer_reaches_the_model(site: SiteMaker) -> None:
    agent = agent_calling(("ask", {"question": "Which colour?"}))

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def ask(question: str) -> str:
        raise CallDeferred(metadata={"banksman": "question"})

    here = site({"asker": agent})
    run_id, [request] = here.waiting("asker")
    assert request.kind is Kind.QUESTION

    here.vote(request, "answer", answer="Blue")
    run = here.advance(run_id)

    assert json.loads(run.output) == [["ask", "Blue"]]


def test_external_work_takes_any_json_as_its_answer(site: SiteMaker) -> None:
    agent = agent_calling(("ship", {"order": "A-1"}))

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def ship(order: str) -> str:
        raise CallDeferred

    here = site({"shipper": agent})
    run_id, [request] = here.waiting("shipper")
    assert request.kind is Kind.EXTERNAL

    here.vote(request, "answer", answer={"tracking": 7})
    run = here.advance(run_id)

    assert json.loads(run.output) == [["ship", '{"tracking":7}']]


def test_a_tool_that_asks_for_approval_itself_runs_its_body_again_once_approved(site: SiteMaker) -> None:
    effects: list[int] = []
    agent = agent_calling(("transfer", {"amount": 5000}))

    @agent.tool(metadata={"banksman": "idempotent"})
    def transfer(ctx: RunContext[None], amount: int) -> str:
        if amount > 1000 and not ctx.tool_call_approved:
            raise ApprovalRequired
        effects.append(amount)
        return f"moved {amount}"

    here = site({"mover": agent}, policy=Policy(allow_tools=["transfer"]))
    run_id, [request] = here.waiting("mover")
    assert request.kind is Kind.APPROVAL
    assert effects == []

    run = here.decide_all(run_id, "approve")

    assert run.status is RunStatus.FINISHED
    assert effects == [5000]


def test_more_than_twenty_calls_in_one_turn_go_back_to_the_model(site: SiteMaker) -> None:
    here = a_site(site, *[("pay", {"amount": number}) for number in range(23)])

    _, requests = here.waiting("payer")

    assert len(requests) == 20


def test_arguments_that_json_cannot_carry_are_refused_by_name(site: SiteMaker) -> None:
    agent = agent_calling(("log_in", {"password": "hunter2"}))

    @agent.tool_plain(requires_approval=True)
    def log_in(password: SecretStr) -> str:
        return "in"

    here = site({"secretive": agent})

    run = here.advance(here.submit("secretive"))

    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "log_in cannot be asked about" in run.error


def test_a_failing_tool_fails_the_run_and_says_so(site: SiteMaker, worker_pool: ledger.Pool) -> None:
    agent = agent_calling(("explode", {}))

    @agent.tool_plain(requires_approval=True)
    def explode() -> str:
        raise ValueError("no powder")

    here = site({"bomber": agent})
    run_id, _ = here.waiting("bomber")

    run = here.decide_all(run_id, "approve")

    assert run.status is RunStatus.FAILED
    assert run.error == "ValueError: no powder"
    with ledger.transaction(worker_pool) as conn:
        [execution] = executions.of_run(conn, run_id)
    assert (execution.state, execution.outcome) == ("finished", "failed")


def test_usage_carries_across_segments(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, _ = here.waiting("payer")
    first = here.run(run_id).usage["requests"]

    run = here.decide_all(run_id, "approve")

    assert first == 1
    assert run.usage["requests"] == 2


def test_the_conversation_is_appended_not_rewritten(site: SiteMaker, worker_pool: ledger.Pool) -> None:
    here = a_site(site, ("look", {"what": "a"}), ("pay", {"amount": 5}))
    run_id, _ = here.waiting("payer")
    here.decide_all(run_id, "approve")

    with ledger.transaction(worker_pool) as conn:
        taken = snapshots.load(conn, run_id)

    written = sum(len(json.loads(item.messages)) for item in taken)
    assert written <= len(taken) + 3
    assert all(item.seq == number for number, item in enumerate(taken))


def test_every_step_is_in_the_audit_log(site: SiteMaker, gateway_pool: ledger.Pool) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, _ = here.waiting("payer")
    here.decide_all(run_id, "approve")

    with ledger.transaction(gateway_pool) as conn:
        actions = [event.action for event in audit.of_run(conn, run_id)]

    assert actions == [
        "run.started",
        "request.opened",
        "run.parked",
        "request.approved",
        "run.resumed",
        "execution.started",
        "execution.finished",
        "run.finished",
    ]


def test_a_superseded_request_says_so(site: SiteMaker, gateway_pool: ledger.Pool) -> None:
    from banksman.ledger import requests

    here = a_site(site, ("pay", {"amount": 5}), trusts=None)
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    with ledger.transaction(gateway_pool) as conn:
        from banksman.ledger import staff

        staff.disable(conn, here.reviewers[0].id)
    here.advance(run_id)

    with ledger.transaction(gateway_pool) as conn:
        assert requests.get(conn, request.id).state is RequestState.SUPERSEDED


def test_a_worker_without_the_agent_uses_up_no_attempt(site: SiteMaker) -> None:
    here, elsewhere = a_site(site, ("look", {"what": "x"})), site({"other": agent_calling()})
    run_id = here.submit("payer")

    for _ in range(3):
        run = elsewhere.advance(run_id)
        assert (run.status, run.attempts) == (RunStatus.QUEUED, 0)
        assert "No agent 'payer' on this worker" in (run.error or "")

    assert here.advance(run_id).status is RunStatus.FINISHED


def _even(amount: int) -> int:
    if amount % 2:
        raise ValueError("it must be even")
    return amount


Even = Annotated[int, AfterValidator(_even)]


def test_an_edit_that_the_tool_itself_refuses_is_asked_again(site: SiteMaker) -> None:
    paid = list[int]()

    def pay(amount: Even) -> str:
        """Pay."""
        paid.append(amount)
        return f"paid {amount}"

    agent = Agent(agent_calling(("pay", {"amount": 2})).model, tools=[Tool(pay, requires_approval=True)])
    here = site({"payer": agent})
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve", arguments={"amount": 3})

    waits = here.advance(run_id)

    assert waits.status is RunStatus.WAITING, waits.error
    [again] = here.open(run_id)
    assert here.arguments(again) == {"amount": 2}
    assert json.loads(again.context)["why_again"].startswith("The tool refused the edited arguments")
    assert here.decide_all(run_id, "approve").status is RunStatus.FINISHED
    assert paid == [2]


def test_more_than_twenty_questions_of_one_turn_go_back_to_the_model(site: SiteMaker) -> None:
    asks = [("ask_person", {"question": f"Is {number} right?"}) for number in range(23)]
    here = site({"asker": Agent(agent_calling(*asks).model, toolsets=[questions()])})

    run_id, asked = here.waiting("asker")

    assert len(asked) == 20
    for request in asked:
        here.vote(request, "answer", answer="Yes.")
    assert here.advance(run_id).status is RunStatus.FINISHED
