"""The journal at its worst moments: a worker that is gone in the middle of a tool, and what the next one does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ApprovalRequired, CallDeferred, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman import ledger
from banksman.ids import RunId
from banksman.ledger import executions, runs
from banksman.policy import Policy
from banksman.records import Execution
from banksman.states import Kind, RunStatus, Tier
from banksman_worker import ending, lease, segment
from banksman_worker.dispatch import Dispatcher
from banksman_worker.journal import Journal
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import agent_calling, returns

LONG = timedelta(minutes=5)


class Stuck:
    """A tool that does its deed and then hangs, as if its worker had died, until it is let go."""

    def __init__(self) -> None:
        self.deeds: list[str] = []
        self.entered = threading.Event()
        self.released = threading.Event()
        self.hangs = True

    def act(self, what: str) -> str:
        self.deeds.append(what)
        if self.hangs:
            self.hangs = False
            self.entered.set()
            assert self.released.wait(30)
        return f"did {what}"

    def agent(self, **options: Any) -> Agent[None, str]:
        agent = agent_calling(("act", {"what": "it"}))
        agent.tool_plain(**options)(self.act)
        return agent


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    tool = Stuck()
    yield tool
    tool.released.set()


Dies = Callable[..., tuple[RunId, Site, threading.Thread]]


@pytest.fixture
def dies_inside(site: SiteMaker, stuck: Stuck, owner_pool: ledger.Pool) -> Iterator[Dies]:
    """Carry a run into its tool, and take the run from the worker that is stuck there."""
    zombies: list[threading.Thread] = []

    def make(agent: Agent[None, str], *, approve: bool, policy: Policy | None = None) -> Any:
        first = site({"actor": agent}, policy=policy)
        run_id = first.submit("actor")
        if approve:
            first.advance(run_id)
            for request in first.open(run_id):
                for reviewer in range(request.requirement.approvals):
                    first.vote(request, "approve", by=reviewer, reason="Looks right.")
        number = first.run(run_id).segment
        thread = threading.Thread(target=segment.advance, args=(first.worker, run_id, number))
        zombies.append(thread)
        thread.start()
        assert stuck.entered.wait(20)
        first.worker.leases.close()  # its heart stops; what it does next is a zombie's doing
        with ledger.transaction(owner_pool) as conn:
            conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second'")
        return run_id, site({"actor": agent}, policy=policy), thread

    yield make
    stuck.released.set()
    for zombie in zombies:
        zombie.join(20)


def journal_of(pool: ledger.Pool, run_id: RunId) -> list[Execution]:
    with ledger.transaction(pool) as conn:
        return list(executions.of_run(conn, run_id))


def test_a_call_that_may_have_happened_waits_for_a_person(dies_inside: Dies, stuck: Stuck) -> None:
    run_id, second, _ = dies_inside(stuck.agent(requires_approval=True), approve=True)

    run = second.advance(run_id)

    assert run.status is RunStatus.WAITING
    assert stuck.deeds == ["it"]
    [request] = second.open(run_id)
    assert request.kind is Kind.OUTCOME


class Paid(BaseModel):
    """What the agent is to say at the end."""

    words: str


def test_a_call_in_doubt_is_asked_about_although_the_same_response_answers(dies_inside: Dies, stuck: Stuck) -> None:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        told = [part for part in returns(messages) if part.tool_name == "act"]
        said = ToolCallPart(info.output_tools[0].name, {"words": str(told[-1].content) if told else "soon"})
        return ModelResponse([said] if told else [ToolCallPart("act", {"what": "it"}, tool_call_id="c0"), said])

    agent = Agent(FunctionModel(answer), output_type=Paid)
    agent.tool_plain(stuck.act)
    run_id, second, _ = dies_inside(agent, approve=False, policy=Policy(allow_tools=("act",)))

    assert second.advance(run_id).status is RunStatus.WAITING
    [doubt] = second.open(run_id)
    assert doubt.kind is Kind.OUTCOME

    second.vote(doubt, "happened", answer="It went through.")
    ended = second.advance(run_id)
    assert ended.status is RunStatus.FINISHED, ended.error
    assert "It went through." in str(ended.output)
    assert stuck.deeds == ["it"]


def test_a_call_that_must_be_asked_about_is_asked_although_the_same_response_answers(site: SiteMaker) -> None:
    made = list[str]()

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        told = [part for part in returns(messages) if part.tool_name == "act"]
        said = ToolCallPart(info.output_tools[0].name, {"words": str(told[-1].content) if told else "soon"})
        return ModelResponse([said] if told else [ToolCallPart("act", {"what": "it"}, tool_call_id="c0"), said])

    agent = Agent(FunctionModel(answer), output_type=Paid)

    @agent.tool_plain
    def act(what: str) -> str:
        made.append(what)
        return f"did {what}"

    del act
    here = site({"actor": agent})
    run_id, [asked] = here.waiting("actor")

    assert (asked.tool, made) == ("act", [])
    ended = here.decide_all(run_id, "approve")
    assert (ended.status, ended.output, made) == (RunStatus.FINISHED, {"words": "did it"}, ["it"])


def test_while_a_machine_is_suspended_a_lease_runs_out(
    stuck: Stuck, site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck.hangs = False
    here = site({"actor": stuck.agent(requires_approval=True)})
    run_id, [request] = here.waiting("actor")
    here.vote(request, "approve")
    start = Journal._start  # pyright: ignore[reportPrivateUsage]

    def suspended(*args: Any) -> Any:
        found = start(*args)
        now = lease.clock()
        monkeypatch.setattr(lease, "clock", lambda: now + 3600)
        return found

    monkeypatch.setattr(Journal, "_start", suspended)
    here.advance(run_id)

    assert stuck.deeds == []


def test_it_happened_and_the_model_is_told_so(dies_inside: Dies, stuck: Stuck) -> None:
    run_id, second, _ = dies_inside(stuck.agent(requires_approval=True), approve=True)
    second.advance(run_id)

    second.vote(second.open(run_id)[0], "happened", answer="I saw it on the account.")
    run = second.advance(run_id)

    assert run.status is RunStatus.FINISHED
    assert stuck.deeds == ["it"]
    assert "I saw it on the account." in run.output


def test_a_rerun_runs_it_once_more_and_no_oftener(dies_inside: Dies, stuck: Stuck, worker_pool: ledger.Pool) -> None:
    run_id, second, _ = dies_inside(stuck.agent(requires_approval=True), approve=True)
    second.advance(run_id)

    second.vote(second.open(run_id)[0], "rerun")
    run = second.advance(run_id)

    assert run.status is RunStatus.FINISHED
    assert stuck.deeds == ["it", "it"]
    assert [(item.attempt, item.state) for item in journal_of(worker_pool, run_id)] == [(1, "started"), (2, "finished")]


def test_stopping_an_unknown_outcome_cancels_the_run(dies_inside: Dies, stuck: Stuck) -> None:
    run_id, second, _ = dies_inside(stuck.agent(requires_approval=True), approve=True)
    second.advance(run_id)

    second.vote(second.open(run_id)[0], "stop")

    assert second.run(run_id).status is RunStatus.CANCELLED
    assert stuck.deeds == ["it"]


def test_a_zombie_may_still_say_what_its_tool_returned(
    dies_inside: Dies, stuck: Stuck, worker_pool: ledger.Pool
) -> None:
    run_id, second, zombie = dies_inside(stuck.agent(requires_approval=True), approve=True)
    second.advance(run_id)
    [request] = second.open(run_id)

    stuck.released.set()
    zombie.join(20)
    second.vote(request, "rerun")
    run = second.advance(run_id)

    assert stuck.deeds == ["it"]
    assert run.status is RunStatus.FINISHED
    assert "did it" in run.output
    assert [item.state for item in journal_of(worker_pool, run_id)] == ["finished"]


def test_a_zombie_commits_nothing_else(dies_inside: Dies, stuck: Stuck) -> None:
    run_id, second, zombie = dies_inside(stuck.agent(requires_approval=True), approve=True)
    second.advance(run_id)
    before = second.run(run_id)

    stuck.released.set()
    zombie.join(20)

    assert second.run(run_id) == before


def test_an_idempotent_tool_is_simply_run_again(dies_inside: Dies, stuck: Stuck) -> None:
    agent = stuck.agent(requires_approval=True, metadata={"banksman": "idempotent"})
    run_id, second, _ = dies_inside(agent, approve=True)

    run = second.advance(run_id)

    assert run.status is RunStatus.FINISHED
    assert stuck.deeds == ["it", "it"]


def test_an_allowed_tool_in_doubt_is_asked_about_too(dies_inside: Dies, stuck: Stuck) -> None:
    policy = Policy(allow_tools=["act"])
    run_id, second, _ = dies_inside(stuck.agent(), approve=False, policy=policy)

    run = second.advance(run_id)

    assert run.status is RunStatus.WAITING
    assert second.open(run_id)[0].kind is Kind.OUTCOME
    assert stuck.deeds == ["it"]


def test_a_finished_call_is_not_repeated_after_a_crash(site: SiteMaker, owner_pool: ledger.Pool) -> None:
    deeds: list[str] = []
    broken = [True]
    agent = agent_calling(("act", {"what": "it"}), ("look", {}))

    @agent.tool_plain
    def act(what: str) -> str:
        deeds.append(what)
        return f"did {what}"

    @agent.tool_plain
    def look() -> str:
        if broken.pop():
            raise ConnectionError("the line is down")
        return "seen"

    here = site({"actor": agent}, policy=Policy(allow_tools=["*"]))
    run_id = here.submit("actor")
    assert here.advance(run_id).status is RunStatus.QUEUED  # a broken line is worth another attempt

    broken.append(False)
    run = here.advance(run_id)

    assert deeds == ["it"]
    assert run.status is RunStatus.FAILED  # a tool that failed is not tried behind the model's back
    assert run.error is not None
    assert "the line is down" in run.error


def test_a_workspace_tool_is_done_again_because_its_memory_died(site: SiteMaker, owner_pool: ledger.Pool) -> None:
    from banksman_worker.deep import deep_agent
    from banksman_worker.scripted import Call, scripted_model

    crash = [True]

    def think(seen: Any) -> str:
        if crash and crash.pop():
            raise ConnectionError("the model is away")
        return f"read: {seen.returns[-1].text}"

    agent = deep_agent(
        model=scripted_model(
            lambda _: [
                Call("write_file", {"path": "/a.txt", "content": "one"}),
                Call("execute", {"command": "cat a.txt && echo two > b.txt"}),
            ],
            think,
            name="scripted-files",
        ),
        interrupt_on={"write_file": True, "execute": True},
    )
    here = site({"filer": agent})
    run_id, _ = here.waiting("filer")
    assert here.decide_all(run_id, "approve").status is RunStatus.QUEUED

    run = here.advance(run_id)

    assert run.status is RunStatus.FINISHED, run.error
    assert "one" in json.dumps(run.output)


def test_a_run_whose_worker_keeps_dying_becomes_stuck(site: SiteMaker, owner_pool: ledger.Pool) -> None:
    here = site({"actor": agent_calling(("nothing", {}))})
    run_id = here.submit("actor")
    for _ in range(3):
        with ledger.transaction(here.worker.pool) as conn:
            runs.claim(conn, run_id, 0, owner="dying", lease=timedelta(seconds=-1))

    with ledger.transaction(here.worker.pool) as conn:
        [due] = runs.dispatch(conn, window=10, redispatch=LONG, max_attempts=3)

    assert due.status is RunStatus.STUCK
    assert here.run(run_id).status is RunStatus.STUCK


def test_a_stuck_run_says_why(site: SiteMaker) -> None:
    here = site({"actor": agent_calling(("nothing", {}))})
    run_id = here.submit("actor")
    dispatcher = Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=10, redispatch=LONG, max_attempts=1)
    with ledger.transaction(here.worker.pool) as conn:
        runs.claim(conn, run_id, 0, owner="dying", lease=timedelta(seconds=-1))

    dispatcher.look()

    run = here.run(run_id)
    assert run.status is RunStatus.STUCK
    assert run.error is not None
    assert "worker ended or was lost" in run.error


def test_a_rerun_needs_as_many_people_as_the_call_itself(dies_inside: Dies, stuck: Stuck) -> None:
    policy = Policy(tier=Tier.HIGH)
    run_id, second, _ = dies_inside(stuck.agent(requires_approval=True), approve=True, policy=policy)
    second.advance(run_id)
    [request] = second.open(run_id)

    first = second.vote(request, "rerun", reason="It is not on the account.")
    both = second.vote(request, "rerun", by=1, reason="Nor on mine.")
    run = second.advance(run_id)

    assert first.resume is None
    assert both.resume == (run_id, 2)
    assert run.status is RunStatus.FINISHED
    assert stuck.deeds == ["it", "it"]


def test_a_call_that_put_itself_off_does_not_run_its_body_again_after_a_crash(
    site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects: list[str] = []
    agent = agent_calling(("schedule", {"job": "j1"}))

    @agent.tool_plain
    def schedule(job: str) -> str:
        effects.append(job)
        raise CallDeferred(metadata={"task": job})

    del schedule
    here = site({"scheduler": agent})
    run_id, [request] = here.waiting("scheduler")
    here.vote(request, "approve")
    with monkeypatch.context() as broken:
        broken.setattr(ending, "_park", crash)
        assert here.advance(run_id).status is RunStatus.QUEUED

    run = here.advance(run_id)

    assert run.status is RunStatus.WAITING
    assert effects == ["j1"]
    [work] = here.open(run_id)
    assert work.kind is Kind.EXTERNAL
    assert json.loads(work.context)["asked"] == {"task": "j1"}


def test_a_call_whose_body_asked_runs_again_once_a_person_said_so(
    site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects: list[bool] = []
    agent = agent_calling(("pay_out", {}))

    @agent.tool(requires_approval=False)
    def pay_out(ctx: RunContext[None]) -> str:
        effects.append(ctx.tool_call_approved)
        if not ctx.tool_call_approved:
            raise ApprovalRequired
        return "paid"

    del pay_out
    here = site({"payer": agent}, policy=Policy(allow_tools=["pay_out"]))
    run_id = here.submit("payer")
    with monkeypatch.context() as broken:
        broken.setattr(ending, "_park", crash)
        here.advance(run_id)
    assert here.advance(run_id).status is RunStatus.WAITING
    assert effects == [False]

    run = here.decide_all(run_id, "approve")

    assert run.status is RunStatus.FINISHED
    assert effects == [False, True]


def crash(*_: object) -> None:
    raise ConnectionError("as if the worker had died here")
