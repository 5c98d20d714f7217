"""A task handed to another agent is a child run: with requests of its own, to any depth, stopped with its parent."""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import Any

import psycopg.errors
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

from banksman import ids, ledger
from banksman.errors import ConfigurationError, NotAllowed
from banksman.ids import RunId
from banksman.ledger import audit, families, runs, stops
from banksman.records import Delegation, Run
from banksman.states import FINAL, RunStatus
from banksman_worker import agents as listing
from banksman_worker.agents import Listed
from banksman_worker.asking import delegates
from banksman_worker.deep import deep_agent
from banksman_worker.dispatch import Dispatcher
from tests.worker.conftest import HINT, Site, SiteMaker
from tests.worker.test_cancel import until
from tests.worker.test_segment import agent_calling, returns, with_tools


def boss(*tasks: tuple[str, str], calls: tuple[tuple[str, dict[str, Any]], ...] = (), **more: Any) -> Agent[None, str]:
    """An agent that delegates all its tasks in its first turn."""
    asked = [("delegate_task", {"agent": agent, "task": task}) for agent, task in tasks]
    agent = agent_calling(*asked, *calls)
    return Agent(agent.model, toolsets=[delegates(*dict.fromkeys(name for name, _ in tasks))], **more)


def payer(effects: list[Any], *calls: tuple[str, dict[str, Any]]) -> Agent[None, str]:
    return with_tools(agent_calling(*calls), effects)


def children(here: Site, parent: RunId) -> list[RunId]:
    with ledger.transaction(here.gateway) as conn:
        rows = conn.execute("SELECT id FROM runs WHERE parent_id = %s ORDER BY id", (parent,)).fetchall()
    return [RunId(row[0]) for row in rows]


def announce(here: Site) -> None:
    """What a worker does as it starts."""
    from banksman.ledger import agents

    with ledger.transaction(here.worker.pool) as conn:
        agents.announce(conn, {name: ("1", {}) for name in here.worker.agents})


def settle(here: Site, run_id: RunId, verdict: str = "approve") -> Run:
    """Carry a whole family on until the run is over, with the same verdict for everything."""
    for _ in range(50):
        for child in children(here, run_id):
            if here.run(child).status not in FINAL:
                settle(here, child, verdict)
        run = here.run(run_id)
        if run.status in FINAL:
            return run
        for request in here.open(run_id):
            here.vote(request, verdict)
        dispatcher(here).look()
        here.advance(run_id)
    raise AssertionError("The family does not come to an end.")


def test_the_parent_waits_for_its_child_and_reads_its_answer(site: SiteMaker) -> None:
    effects: list[Any] = []
    here = site({"boss": boss(("payer", "Pay 5.")), "payer": payer(effects, ("pay", {"amount": 5}))})
    announce(here)
    run_id = here.submit("boss")

    assert here.advance(run_id).status is RunStatus.WAITING
    assert here.open(run_id) == []
    [child] = children(here, run_id)
    assert here.run(child).prompt == "Pay 5."
    assert here.advance(child).status is RunStatus.WAITING
    [request] = here.open(child)
    assert here.run(run_id).status is RunStatus.WAITING
    here.vote(request, "approve")
    assert here.advance(child).status is RunStatus.FINISHED

    assert here.run(run_id).status is RunStatus.QUEUED
    run = here.advance(run_id)
    assert run.status is RunStatus.FINISHED
    [[name, answer]] = json.loads(run.output)
    assert (name, json.loads(answer)) == ("delegate_task", [["pay", "paid 5 EUR"]])
    assert effects == [("pay", 5, "EUR")]


def test_several_children_and_an_approval_of_ones_own_are_waited_for_together(site: SiteMaker) -> None:
    effects: list[Any] = []
    parent = with_tools(boss(("payer", "One."), ("payer", "Two."), calls=(("send", {"to": "x"}),)), effects)
    here = site({"boss": parent, "payer": payer(effects, ("look", {"what": "a"}))})
    announce(here)
    run_id = here.submit("boss")
    here.advance(run_id)
    first, second = children(here, run_id)

    here.advance(first)
    assert here.run(run_id).status is RunStatus.WAITING
    here.advance(second)
    assert here.run(run_id).status is RunStatus.WAITING
    [own] = here.open(run_id)
    outcome = here.vote(own, "approve")

    assert outcome.resume == (run_id, 1)
    run = here.advance(run_id)
    assert [name for name, _ in json.loads(run.output)] == ["delegate_task", "delegate_task", "send"]
    assert effects == [("look", "a"), ("look", "a"), ("send", "x")]


def test_a_parent_waits_for_its_last_child(site: SiteMaker) -> None:
    here = site({"boss": boss(("a", "One."), ("a", "Two.")), "a": agent_calling()})
    announce(here)
    run_id = here.submit("boss")
    here.advance(run_id)
    first, second = children(here, run_id)

    here.advance(first)
    dispatcher(here).look()
    assert here.run(run_id).status is RunStatus.WAITING
    here.advance(second)
    assert here.run(run_id).status is RunStatus.QUEUED


def test_it_goes_to_any_depth(site: SiteMaker) -> None:
    effects: list[Any] = []
    chain = {f"level{n}": boss((f"level{n + 1}", f"Go to {n + 1}.")) for n in range(6)}
    here = site({**chain, "level6": payer(effects, ("pay", {"amount": 7}))})
    announce(here)

    run = settle(here, here.submit("level0"))

    assert run.status is RunStatus.FINISHED
    assert effects == [("pay", 7, "EUR")]
    assert "paid 7 EUR" in run.output


def test_delegating_for_ever_comes_to_an_end(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "MOST_DEEP", 4)
    here = site({"boss": boss(("boss", "Again."))})
    announce(here)

    run = settle(here, here.submit("boss"))

    assert run.status is RunStatus.FINISHED
    assert "4 runs above this one" in run.output


@pytest.mark.parametrize("ends", ["failed", "cancelled", "unknown"])
def test_a_child_that_does_not_finish_is_told_of(site: SiteMaker, ends: str) -> None:
    def fail(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        raise RuntimeError("no way")

    here = site(
        {"boss": boss(("nobody" if ends == "unknown" else "other", "Try.")), "other": Agent(FunctionModel(fail))}
    )
    announce(here)
    run_id = here.submit("boss")
    here.advance(run_id)
    [child] = children(here, run_id)
    if ends == "failed":
        here.advance(child)
    elif ends == "cancelled":
        with ledger.transaction(here.gateway) as conn:
            runs.lock(conn, child)
            stops.stop(conn, [child], "somebody")
    dispatcher(here).look()  # who cancels, and a child that never lived, leave the parent to it

    assert here.run(run_id).status is RunStatus.QUEUED
    run = here.advance(run_id)
    assert run.status is RunStatus.FINISHED
    word = {"failed": "no way", "cancelled": "cancelled", "unknown": "no agent 'nobody'"}[ends]
    assert word in run.output


def dispatcher(here: Site) -> Dispatcher:
    return Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=100, redispatch=HINT, max_attempts=5)


def test_a_parent_whose_child_ended_unseen_is_found(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = site({"boss": boss(("other", "Do.")), "other": agent_calling()})
    announce(here)
    run_id = here.submit("boss")
    here.advance(run_id)
    [child] = children(here, run_id)
    monkeypatch.setattr("banksman_worker.delegation.report", print)
    assert here.advance(child).status is RunStatus.FINISHED
    assert here.run(run_id).status is RunStatus.WAITING

    dispatcher(here).look()

    assert here.run(run_id).status is RunStatus.QUEUED


def test_a_family_is_stopped_with_its_ancestor(site: SiteMaker) -> None:
    effects: list[Any] = []
    here = site(
        {
            "top": boss(("middle", "Go."), ("payer", "Pay.")),
            "middle": boss(("payer", "Pay.")),
            "payer": payer(effects, ("pay", {"amount": 5})),
        }
    )
    announce(here)
    run_id = here.submit("top")
    here.advance(run_id)
    middle, one = sorted(children(here, run_id), key=lambda child: here.run(child).agent)
    here.advance(middle)
    [two] = children(here, middle)
    here.advance(one)
    here.advance(two)
    asked = [here.open(one)[0], here.open(two)[0]]

    with ledger.transaction(here.gateway) as conn:
        runs.lock(conn, run_id)
        stops.stop(conn, [run_id], "somebody")

    assert {here.run(each).status for each in (run_id, middle, one, two)} == {RunStatus.CANCELLED}
    assert here.open(one) == here.open(two) == []
    with ledger.transaction(here.gateway) as conn:
        told = [event.action for event in audit.of_run(conn, two)]
    assert told[-2:] == ["run.cancelled", "request.cancelled"]
    for request in asked:
        with pytest.raises(Exception, match="The run was cancelled"):
            here.vote(request, "approve")
    assert effects == []


def test_the_requester_decides_on_no_child_either(site: SiteMaker) -> None:
    effects: list[Any] = []
    here = site({"boss": boss(("payer", "Pay.")), "payer": payer(effects, ("pay", {"amount": 5}))})
    announce(here)
    run_id = here.submit("boss", requester=here.reviewers[0])
    here.advance(run_id)
    [child] = children(here, run_id)
    here.advance(child)
    [request] = here.open(child)

    with pytest.raises(NotAllowed, match="You asked for this run"):
        here.vote(request, "approve", by=0)


def test_a_last_child_and_a_last_vote_at_once_always_wake_the_parent(site: SiteMaker) -> None:
    effects: list[Any] = []
    parent = with_tools(boss(("a", "One."), ("a", "Two."), calls=(("send", {"to": "x"}),)), effects)
    here = site({"boss": parent, "a": agent_calling()})
    announce(here)
    for _ in range(15):
        run_id = here.submit("boss")
        here.advance(run_id)
        first, second = children(here, run_id)
        [own] = here.open(run_id)
        at_once = [
            threading.Thread(target=here.advance, args=(first,)),
            threading.Thread(target=here.advance, args=(second,)),
            threading.Thread(target=here.vote, args=(own, "approve")),
        ]
        for thread in at_once:
            thread.start()
        for thread in at_once:
            thread.join()
        assert here.run(run_id).status is RunStatus.QUEUED


def test_a_worker_can_start_no_run_but_a_child_of_the_same_requester(site: SiteMaker) -> None:
    here = site({"boss": boss(("other", "Do.")), "other": agent_calling()})
    run_id = here.submit("boss", requester=here.reviewers[0])
    row = "INSERT INTO runs (id, agent, requester, requester_id, prompt, metadata, due_at, parent_id)"
    for parent, requester, person in (
        (None, "ana@example.org", here.reviewers[0].id),
        (run_id, "ben@example.org", here.reviewers[1].id),
        (run_id, "ana@example.org", None),
    ):
        values = (ids.new(), requester, person, parent)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), ledger.transaction(here.worker.pool) as conn:
            conn.execute(f"{row} VALUES (%s, 'a', %s, %s, '', '', now(), %s)".encode(), values)
    with ledger.transaction(here.worker.pool) as conn:
        task = Delegation(RunId(ids.new()), "other", "Do.", 1, "c0")
        families.send_out(conn, run_id, 0, task, hint=HINT)
    assert here.run(task.child_id).requester_id == here.reviewers[0].id


def deep_boss(**more: Any) -> Agent[Any, Any]:
    def talk(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done = returns(messages)
        if done:
            return ModelResponse([TextPart(f"It says: {done[-1].model_response_str()}")])
        task = {"description": "Write /note.txt.", "subagent_type": "writer"}
        return ModelResponse([ToolCallPart("task", task, tool_call_id="t1")])

    return deep_agent(FunctionModel(talk), **more)


WRITER = {"name": "writer", "description": "Writes.", "instructions": "Write what you are told."}


def writes(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if returns(messages):
        return ModelResponse([TextPart("Written.")])
    return ModelResponse([ToolCallPart("write_file", {"path": "/note.txt", "content": "Hello."}, tool_call_id="w1")])


@pytest.mark.parametrize("asked_first", [False, True])
def test_a_deep_agents_subagent_is_a_child_run_with_a_gate_of_its_own(site: SiteMaker, asked_first: bool) -> None:
    writer = {**WRITER, "model": FunctionModel(writes)}
    interrupt = {"write_file": True, "task": asked_first}
    agent = deep_boss(subagents=[writer], interrupt_on=interrupt)
    found = listing._family("tests", "boss", agent)  # pyright: ignore[reportPrivateUsage]
    here = site({each.name: each for each in found})
    announce(here)
    run_id = here.submit("boss")
    here.advance(run_id)
    if asked_first:
        [request] = here.open(run_id)
        assert request.tool == "task"
        here.vote(request, "approve")
        assert here.advance(run_id).status is RunStatus.WAITING
    [child] = children(here, run_id)
    assert here.run(child).agent == "boss:writer"
    here.advance(child)
    [request] = here.open(child)
    assert request.tool == "write_file"

    run = settle(here, run_id)

    assert run.output == "It says: Written."


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**WRITER, "can_ask_questions": True}, r"cannot take can_ask_questions: .*questions\(\)"),
        ({**WRITER, "context_files": ["/a"]}, "cannot take context_files: build the agent yourself"),
        ({**WRITER, "agent_kwargs": {"retries": 2}}, "cannot take agent_kwargs: build the agent yourself"),
        ({**WRITER, "on_failure": "Go on."}, "cannot take on_failure: the parent is told"),
        ({**WRITER, "preferred_mode": "async"}, "cannot run in the background"),
        ({**WRITER, "name": "a b"}, "called 'a b'"),
    ],
)
def test_what_has_no_meaning_for_a_child_run_is_refused_with_what_to_do(config: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        deep_boss(subagents=[config])


def test_two_subagents_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Two subagents are called 'writer'"):
        deep_boss(subagents=[WRITER, WRITER])


def test_a_subagent_may_bring_its_own_agent_and_have_subagents() -> None:
    below = deep_agent(FunctionModel(writes), subagents=[{**WRITER, "name": "scribe"}])
    agent = deep_boss(subagents=[{**WRITER, "agent": below}])

    found = listing._family("tests", "boss", agent)  # pyright: ignore[reportPrivateUsage]

    assert [each.name for each in found] == ["boss", "boss:writer", "boss:writer:scribe"]


def test_what_is_listed_beside_a_parent_holds_for_its_subagents_unless_they_are_listed_themselves() -> None:
    limits, own = UsageLimits(request_limit=9), Listed(deep_agent(FunctionModel(writes)), version="7")
    agent = deep_boss(subagents=[WRITER, {**WRITER, "name": "scribe", "agent": own}])
    parent = Listed(agent, version="3", sensitive_args={"write_file": ["content"]}, usage_limits=limits)

    [_, writer, scribe] = listing._family("tests", "boss", parent)  # pyright: ignore[reportPrivateUsage]

    assert (writer.version, writer.sensitive_args, writer.usage_limits) == ("3", {"write_file": ["content"]}, limits)
    assert (scribe.version, scribe.sensitive_args, scribe.usage_limits) == ("7", {}, None)


def test_the_dispatcher_holds_one_parent_at_a_time(
    site: SiteMaker, owner_pool: ledger.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site({"boss": boss(("other", "Do.")), "other": agent_calling()})
    announce(here)
    monkeypatch.setattr("banksman_worker.delegation.report", print)
    parents = sorted(here.submit("boss") for _ in range(2))
    for parent in parents:
        here.advance(parent)
        [child] = children(here, parent)
        here.advance(child)

    looking = threading.Thread(target=dispatcher(here).look)
    with ledger.transaction(owner_pool) as conn:
        runs.lock(conn, parents[1])
        looking.start()
        until(lambda: somebody_waits(owner_pool))
        conn.execute("SET LOCAL lock_timeout = '500ms'")
        runs.lock(conn, parents[0])
    looking.join()

    assert [here.run(parent).status for parent in parents] == [RunStatus.QUEUED] * 2


def somebody_waits(pool: ledger.Pool) -> bool:
    with ledger.transaction(pool) as conn:
        return conn.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None


def test_the_dispatcher_reports_however_many_in_one_look(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = site({"boss": boss(("other", "Do.")), "other": agent_calling()})
    announce(here)
    monkeypatch.setattr("banksman_worker.delegation.report", print)
    monkeypatch.setattr(families, "unreported", partial(families.unreported, limit=1))
    parents = [here.submit("boss") for _ in range(3)]
    for parent in parents:
        here.advance(parent)
        [child] = children(here, parent)
        here.advance(child)

    dispatcher(here).look()

    assert [here.run(parent).status for parent in parents] == [RunStatus.QUEUED] * 3
