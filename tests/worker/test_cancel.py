"""A run is cancelled in the middle of a tool: its row says of every call what became of it, and goes on saying so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from unittest.mock import Mock

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman import ledger
from banksman.ids import RunId
from banksman.ledger import audit, rescue, runs, stops, views
from banksman.policy import Policy
from banksman.records import Run
from banksman.states import Kind, RequestState, RunStatus
from banksman_worker import segment
from banksman_worker.dispatch import Dispatcher
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import agent_calling

HEAD = "The run was stopped in the middle of a tool call."
LONG = timedelta(minutes=5)


@dataclass
class Wire:
    """Money that goes out while a test looks: `entered` says that it does, `release` lets it come back."""

    entered: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    fails: bool = False

    def send_wire(self, amount: int) -> str:
        """In a thread, as sync tools are."""
        self.entered.set()
        assert self.released.wait(30)
        self.left.set()
        if self.fails:
            raise ValueError("the bank said no")
        return f"sent {amount}"

    async def send_slowly(self, amount: int) -> str:
        """On the loop, deaf to cancellation."""
        self.entered.set()
        while not self.released.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue
        return f"sent {amount} slowly"


@pytest.fixture
def bank() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.released.set()


def state(owner: ledger.Pool, run_id: RunId) -> tuple[str, str]:
    """The run's and its call's, without a look at what is sealed."""
    with ledger.transaction(owner) as conn:
        row = conn.execute(
            "SELECT status, state FROM runs JOIN executions ON run_id = runs.id WHERE runs.id = %s", (run_id,)
        ).fetchone()
    assert row is not None
    return row


Midway = Callable[..., tuple[Site, RunId, threading.Thread]]


@pytest.fixture
def midway(site: SiteMaker) -> Iterator[Midway]:
    """Carry a run of one tool into that tool, on a thread."""
    carriers: list[threading.Thread] = []

    def make(
        agent: Agent[None, str], entered: threading.Event, *, grace: float, gated: bool = True
    ) -> tuple[Site, RunId, threading.Thread]:
        here = site({"payer": agent}, policy=Policy(allow_tools=["look"]))
        here.worker = replace(here.worker, cancel_grace=timedelta(seconds=grace))
        run_id = here.submit("payer")
        if gated:
            here.advance(run_id)
            [request] = here.open(run_id)
            here.vote(request, "approve")
        thread = threading.Thread(target=segment.advance, args=(here.worker, run_id, here.run(run_id).segment))
        carriers.append(thread)
        thread.start()
        assert entered.wait(20)
        return here, run_id, thread

    yield make
    for thread in carriers:
        thread.join(30)


def stop(here: Site, run_id: RunId) -> None:
    """What the gateway writes, and what the next heartbeat makes of it."""
    with ledger.transaction(here.gateway) as conn:
        assert runs.cancel(conn, [run_id]) == {run_id: RunStatus.RUNNING}
    for lease in here.worker.leases.held():
        lease.stop("cancelled")


def stopped(here: Site, run_id: RunId, thread: threading.Thread) -> Run:
    thread.join(20)
    run = here.run(run_id)
    assert run.status is RunStatus.CANCELLED
    return run


def ended(here: Site, run_id: RunId, tool: str) -> bool:
    """Whether the journal's own lines, as the timeline tells them, know the end of this tool."""
    with ledger.transaction(here.gateway) as conn:
        told = views.timeline(conn, run_id)
    [begun] = [line for line in told if line.what == "execution.started" and line.detail["tool"] == tool]
    assert (begun.detail["state"] == "finished") == any(line.what == "execution.finished" for line in told)
    return begun.detail["state"] == "finished"


def until(fact: Callable[[], bool]) -> None:
    waiter = threading.Event()
    assert any(fact() or waiter.wait(0.05) for _ in range(400))


def a_payer(tool: Callable[..., object], *, gated: bool = True) -> Agent[None, str]:
    agent = agent_calling((tool.__name__, {"amount": 5}))
    agent.tool_plain(requires_approval=gated, metadata=None if gated else {"banksman": "harmless"})(tool)
    return agent


@pytest.mark.parametrize("gated", [True, False])
def test_a_tool_that_ends_in_the_moment_it_is_given_is_reported_as_it_ended(
    midway: Midway, bank: Wire, gated: bool
) -> None:
    here, run_id, thread = midway(a_payer(bank.send_wire, gated=gated), bank.entered, grace=20, gated=gated)

    stop(here, run_id)
    bank.released.set()
    run = stopped(here, run_id, thread)

    assert run.error == f"{HEAD}\nsend_wire had started and returned: sent 5"
    assert ended(here, run_id, "send_wire")


def test_a_tool_that_fails_in_that_moment_is_reported_with_its_error(midway: Midway, bank: Wire) -> None:
    bank.fails = True
    here, run_id, thread = midway(a_payer(bank.send_wire), bank.entered, grace=20)

    stop(here, run_id)
    bank.released.set()
    run = stopped(here, run_id, thread)

    assert run.error == f"{HEAD}\nsend_wire had started and ended with: ValueError: the bank said no"


@pytest.mark.parametrize("tool", ["send_wire", "send_slowly"])
def test_a_tool_that_does_not_end_in_time_is_in_doubt_until_it_comes_back(
    midway: Midway, bank: Wire, tool: str
) -> None:
    here, run_id, thread = midway(a_payer(getattr(bank, tool)), bank.entered, grace=0.2)

    stop(here, run_id)
    run = stopped(here, run_id, thread)

    assert run.error == f"{HEAD}\n{tool} had started and nobody knows whether it happened."
    assert not ended(here, run_id, tool)
    bank.released.set()
    until(lambda: ended(here, run_id, tool))
    late = here.run(run_id)
    assert (late.status, late.finished_at) == (RunStatus.CANCELLED, run.finished_at)
    assert late.error is not None
    assert late.error.startswith(f"{HEAD}\n{tool} had started and returned: sent 5")


def test_calls_that_were_over_before_are_not_named_and_all_others_are(midway: Midway, bank: Wire) -> None:
    second = threading.Event()
    agent = agent_calling(("look", {}), ("send_wire", {"amount": 1}), ("count", {}))
    agent.tool_plain(requires_approval=True)(bank.send_wire)

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def look() -> str:
        return "seen"

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def count() -> str:
        second.set()
        return "counted"

    here, run_id, thread = midway(agent, bank.entered, grace=0.1)

    stop(here, run_id)
    run = stopped(here, run_id, thread)

    assert run.error is not None
    assert run.error.endswith(f"{HEAD}\nsend_wire had started and nobody knows whether it happened.")


def test_a_worker_that_died_with_the_tool_leaves_its_call_named(
    midway: Midway, bank: Wire, owner_pool: ledger.Pool
) -> None:
    here, run_id, thread = midway(a_payer(bank.send_wire), bank.entered, grace=0)
    here.worker.leases.close()  # its heart stops
    with ledger.transaction(here.gateway) as conn:
        runs.cancel(conn, [run_id])
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second'")

    Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=9, redispatch=LONG, max_attempts=3).look()

    run = here.run(run_id)
    assert run.status is RunStatus.CANCELLED
    assert run.error is not None
    assert run.error.endswith(f"{HEAD}\nsend_wire had started and nobody knows whether it happened.")
    bank.released.set()
    thread.join(20)
    assert here.run(run_id).error == f"{HEAD}\nsend_wire had started and returned: sent 5"


def test_a_call_in_doubt_is_named_when_a_person_stops_the_run_and_not_when_one_has_said_that_it_happened(
    midway: Midway, site: SiteMaker, bank: Wire, owner_pool: ledger.Pool
) -> None:
    agent = a_payer(bank.send_wire)
    here, run_id, _ = midway(agent, bank.entered, grace=0)
    here.worker.leases.close()
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second'")
    second = site({"payer": agent})
    assert second.advance(run_id).status is RunStatus.WAITING
    [doubt] = second.open(run_id)
    assert doubt.kind is Kind.OUTCOME

    second.vote(doubt, "stop")

    run = second.run(run_id)
    assert run.error is not None
    assert run.error.endswith(f"{HEAD}\nsend_wire had started and nobody knows whether it happened.")
    with ledger.transaction(owner_pool) as conn:
        # The same row as if somebody had looked, said so, and another had stopped the run afterwards.
        conn.execute("UPDATE requests SET state = %s WHERE id = %s", (RequestState.ANSWERED, doubt.id))
        conn.execute("UPDATE runs SET status = 'waiting', error = NULL, cancel_at = NULL, finished_at = NULL")
        runs.cancel(conn, [run_id])
    assert second.run(run_id).error is None


SPOILT = {
    "changed": "UPDATE runs SET error = error || '!' WHERE id = %s",
    "plain": "UPDATE runs SET error = '\\x00796573' WHERE id = %s",
    "under a key that is not here": "UPDATE runs SET error = overlay(error PLACING 'v9' FROM 2) WHERE id = %s",
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_run_whose_reason_cannot_be_read_is_buried_and_holds_nothing_else_up(
    midway: Midway, bank: Wire, owner_pool: ledger.Pool, spoilt: str
) -> None:
    here, run_id, thread = midway(a_payer(bank.send_wire), bank.entered, grace=0)
    here.worker.leases.close()
    with ledger.transaction(here.gateway) as conn:
        runs.cancel(conn, [run_id], because="Nobody needs it any more.")
    other = here.submit("payer")
    with ledger.transaction(owner_pool) as conn:
        conn.execute(SPOILT[spoilt].encode(), (run_id,))
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second'")
    dispatcher = Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=9, redispatch=LONG, max_attempts=3)

    found = dispatcher.look()

    assert [due.run_id for due in found] == [other]
    assert state(owner_pool, run_id) == ("cancelled", "started")
    bank.released.set()
    thread.join(20)
    assert state(owner_pool, run_id) == ("cancelled", "finished")


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_run_whose_error_cannot_be_read_is_stopped_with_the_others(
    midway: Midway, bank: Wire, owner_pool: ledger.Pool, site: SiteMaker, spoilt: str
) -> None:
    agent = a_payer(bank.send_wire)
    here, run_id, _ = midway(agent, bank.entered, grace=0)
    here.worker.leases.close()
    other = here.submit("payer")
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second'")
    assert site({"payer": agent}).advance(run_id).status is RunStatus.WAITING
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET error = %s WHERE id = %s", (runs.sealed_error(run_id, "It broke."), run_id))
        conn.execute(SPOILT[spoilt].encode(), (run_id,))

    with ledger.transaction(here.gateway) as conn:
        stopped = runs.cancel(conn, [run_id, other])

    assert stopped == {run_id: RunStatus.CANCELLED, other: RunStatus.CANCELLED}
    assert state(owner_pool, run_id) == ("cancelled", "started")


def test_the_dispatcher_sends_what_it_found_though_burying_breaks(
    site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site({"payer": agent_calling()})
    run_id = here.submit("payer")
    monkeypatch.setattr(rescue, "bury_cancelled", Mock(side_effect=ValueError("what nobody thought of")))
    with ledger.transaction(here.worker.pool) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second'")
    dispatcher = Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=9, redispatch=LONG, max_attempts=3)

    with pytest.raises(ValueError, match="nobody thought of"):
        dispatcher.look()

    with ledger.transaction(here.worker.pool) as conn:
        assert conn.execute("SELECT due_at > now() FROM runs WHERE id = %s", (run_id,)).fetchone() == (True,)


def test_the_heartbeat_goes_on_while_a_cancelled_run_waits_for_its_tool(
    site: SiteMaker, bank: Wire, owner_pool: ledger.Pool
) -> None:
    here = site({"payer": a_payer(bank.send_wire, gated=False)}, lease=timedelta(seconds=1.5))
    here.worker = replace(here.worker, cancel_grace=timedelta(seconds=60))
    run_id = here.submit("payer")
    thread = threading.Thread(target=segment.advance, args=(here.worker, run_id, 0))
    thread.start()
    assert bank.entered.wait(20)
    with ledger.transaction(here.gateway) as conn:
        runs.cancel(conn, [run_id])

    thread.join(20)  # half a lease is the most that it waits, whatever the setting says

    run = here.run(run_id)
    with ledger.transaction(owner_pool) as conn:
        told = [event.action for event in audit.of_run(conn, run_id)]
    assert run.status is RunStatus.CANCELLED
    assert told[-1] == "run.cancelled"
    assert run.error is not None
    assert run.error.endswith(f"{HEAD}\nsend_wire had started and nobody knows whether it happened.")


def test_a_run_that_was_asked_to_stop_does_not_finish(site: SiteMaker) -> None:
    def answer(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        with ledger.transaction(here.gateway) as conn:
            runs.lock(conn, run_id)
            stops.stop(conn, [run_id], "somebody", because="Nobody needs it any more.")
        return ModelResponse([TextPart("Here is the answer.")])

    here = site({"talker": Agent(FunctionModel(answer))})
    run_id = here.submit("talker")

    run = here.advance(run_id)

    assert (run.status, run.output) == (RunStatus.CANCELLED, None)
    assert run.error == "Nobody needs it any more."
