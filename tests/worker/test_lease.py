"""Leases at their limits: what keeps a run with its worker, and what a worker does that is no longer sure of one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman import ledger
from banksman.errors import Unavailable
from banksman.ids import RunId
from banksman.ledger import audit, executions, runs
from banksman.states import RunStatus
from banksman_gateway import runs as gateway_runs
from banksman_worker import segment
from banksman_worker.dispatch import Dispatcher
from tests.chaos.proxy import Proxy
from tests.conftest import Database
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import agent_calling, returns

LONG = timedelta(minutes=5)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@dataclass
class Held:
    """The lease of a run by the database's clock, read over a connection that nothing disturbs."""

    owner: psycopg.Connection[tuple[Any, ...]]

    def left(self, run_id: RunId) -> float:
        """Seconds until it ends."""
        row = self.owner.execute(
            "SELECT extract(epoch FROM due_at - clock_timestamp())::float FROM runs WHERE id = %s", (run_id,)
        ).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def held(database: Database) -> Iterator[Held]:
    with psycopg.connect(database.owner, autocommit=True) as owner:
        yield Held(owner)


@dataclass
class Thinking:
    """A model that thinks for long; it notes when it was cut off."""

    begun: threading.Event = field(default_factory=threading.Event)
    cut_at: float | None = None

    def agent(self) -> Agent[None, str]:
        async def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            self.begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cut_at = time.monotonic()
                raise
            raise AssertionError("nobody stopped the model")

        return Agent(FunctionModel(think))


Carry = Callable[[Site, RunId], threading.Thread]


@pytest.fixture
def carry() -> Iterator[Carry]:
    """Carries a run on in a thread, as Celery would."""
    carriers: list[threading.Thread] = []

    def make(here: Site, run_id: RunId) -> threading.Thread:
        def advance() -> None:
            with suppress(Unavailable):  # as the task does, which leaves it to the sweep
                segment.advance(here.worker, run_id, number)

        number = here.run(run_id).segment
        carriers.append(threading.Thread(target=advance))
        carriers[-1].start()
        return carriers[-1]

    yield make
    for carrier in carriers:
        carrier.join(30)


def blocking(agent: Agent[None, str], done: list[float]) -> Agent[None, str]:
    @agent.tool_plain(metadata={"banksman": "harmless"})
    async def grind(busy: float) -> str:
        time.sleep(busy)  # noqa: ASYNC251  a tool that never lets go of the loop
        done.append(busy)
        return "ground"

    del grind
    return agent


def test_a_loop_that_is_busy_for_less_than_a_lease_loses_none(site: SiteMaker, held: Held, carry: Carry) -> None:
    done: list[float] = []
    thinking = Thinking()
    agents = {"grinder": blocking(agent_calling(("grind", {"busy": 2.2})), done), "thinker": thinking.agent()}
    here = site(agents, lease=seconds(3))
    other, run_id = here.submit("thinker"), here.submit("grinder")
    carry(here, other)
    assert thinking.begun.wait(10)

    carry(here, run_id).join(20)

    assert here.run(run_id).status is RunStatus.FINISHED
    assert here.run(run_id).attempts == 1
    assert held.left(other) > 1
    assert thinking.cut_at is None
    [lease] = here.worker.leases.held()
    lease.stop("drained")


def test_a_loop_that_is_stuck_for_longer_gives_its_runs_up_and_says_so(
    site: SiteMaker, held: Held, carry: Carry, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[float] = []
    here = site({"grinder": blocking(agent_calling(("grind", {"busy": 3.2})), done)}, lease=seconds(1.4))
    run_id = here.submit("grinder")

    carry(here, run_id).join(20)

    assert any("The event loop is stuck" in str(record.msg) for record in caplog.records)
    assert here.run(run_id).status is RunStatus.RUNNING
    assert held.left(run_id) < 0
    with ledger.transaction(here.gateway) as conn:
        assert [item.state for item in executions.of_run(conn, run_id)] == ["finished"]
    assert here.advance(run_id).status is RunStatus.FINISHED
    assert done == [3.2]


def test_one_row_in_others_hands_costs_no_other_run_its_lease(
    site: SiteMaker, database: Database, held: Held, carry: Carry
) -> None:
    thoughts = [Thinking(), Thinking()]
    here = site({"one": thoughts[0].agent(), "two": thoughts[1].agent()}, lease=seconds(0.9))
    first, second = here.submit("one"), here.submit("two")
    threads = [carry(here, first), carry(here, second)]
    assert all(thought.begun.wait(10) for thought in thoughts)

    with psycopg.connect(database.owner) as conn:
        conn.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (first,))
        threads[0].join(1.2)
        threads[1].join(0.9)
        assert thoughts[0].cut_at is not None  # it could not be extended, so it was given up in time
        assert held.left(second) > 0
        assert thoughts[1].cut_at is None

    for lease in here.worker.leases.held():
        lease.stop("drained")
    for thread in threads:
        thread.join(10)
    assert here.run(second).status is RunStatus.QUEUED


def test_a_row_that_was_in_others_hands_for_a_moment_is_kept(
    site: SiteMaker, database: Database, held: Held, carry: Carry
) -> None:
    thinking = Thinking()
    here = site({"one": thinking.agent()}, lease=seconds(1.2))
    run_id = here.submit("one")
    thread = carry(here, run_id)
    assert thinking.begun.wait(10)

    with psycopg.connect(database.owner) as conn:
        conn.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (run_id,))
        thread.join(0.6)
    thread.join(1.2)

    assert thinking.cut_at is None
    assert held.left(run_id) > 0
    here.worker.leases.held()[0].stop("drained")


@dataclass
class Away:
    """A worker whose PostgreSQL can be made to hang or to refuse, and the way back."""

    site: Site
    proxy: Proxy


@pytest.fixture
def away(site: SiteMaker, database: Database) -> Iterator[Callable[..., Away]]:
    url = urlsplit(database.worker)
    assert url.port is not None
    proxy = Proxy(url.port)
    proxy.start()
    netloc = f"{url.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}"
    pool = ledger.open_pool(urlunsplit(url._replace(netloc=netloc)), size=6, name="test-away")

    def make(agents: dict[str, Agent[None, str]], lease: timedelta) -> Away:
        return Away(site(agents, lease=lease, pool=pool), proxy)

    yield make
    proxy.heal()
    proxy.close()
    pool.close()


@pytest.mark.parametrize("how", ["hang", "cut"])
def test_without_postgresql_a_conversation_ends_before_its_lease_does(
    away: Callable[..., Away], held: Held, carry: Carry, how: str
) -> None:
    thinking = Thinking()
    there = away({"thinker": thinking.agent()}, seconds(1.2))
    run_id = there.site.submit("thinker")
    carry(there.site, run_id)
    assert thinking.begun.wait(10)

    getattr(there.proxy, how)()
    ends_at = time.monotonic() + held.left(run_id) + 0.01
    _until(lambda: held.left(run_id) < -0.1)

    assert thinking.cut_at is not None
    assert thinking.cut_at < ends_at + 1.2 - 0.4  # at most one beat may still have come through
    assert thinking.cut_at < time.monotonic() + held.left(run_id)
    there.proxy.heal()


@pytest.mark.parametrize("how", ["hang", "cut"])
def test_past_its_lease_a_worker_starts_no_tool_and_what_one_returned_meanwhile_is_kept(
    away: Callable[..., Away], site: SiteMaker, held: Held, carry: Carry, how: str
) -> None:
    entered, released, deeds = threading.Event(), threading.Event(), list[str]()

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done = [item.tool_call_id for item in returns(messages)]
        calls = [ToolCallPart("act", {"what": what}, tool_call_id=what) for what in ("first", "second")]
        return ModelResponse([TextPart("Done.")] if len(done) == 2 else calls)

    agent: Agent[None, str] = Agent(FunctionModel(answer))

    @agent.tool_plain(requires_approval=True)
    def act(what: str) -> str:
        deeds.append(what)
        entered.set()
        assert released.wait(30)
        return f"did {what}"

    del act
    there = away({"actor": agent}, seconds(1.2))
    run_id = there.site.submit("actor")
    there.site.advance(run_id)
    for request in there.site.open(run_id):
        there.site.vote(request, "approve")
    zombie = carry(there.site, run_id)
    assert entered.wait(10)

    getattr(there.proxy, how)()
    _until(lambda: held.left(run_id) < 0)
    released.set()
    there.proxy.heal()
    zombie.join(20)
    _until(lambda: not there.site.worker.leases.held())

    def stored() -> list[str]:
        with ledger.transaction(there.site.gateway) as conn:
            return [item.state for item in executions.of_run(conn, run_id)]

    _until(lambda: stored() == ["finished"])
    assert deeds == ["first"]
    assert there.site.run(run_id).status is RunStatus.RUNNING
    second = site({"actor": agent}, lease=LONG)
    assert second.advance(run_id).status is RunStatus.FINISHED
    assert deeds == ["first", "second"]


def test_a_result_that_cannot_be_stored_is_tried_again_until_it_is(
    site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, deeds, tries = agent_calling(("act", {"what": "it"})), list[str](), list[int]()

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def act(what: str) -> None:
        deeds.append(what)

    del act
    store = executions.finish

    def finish(*given: Any, **more: Any) -> bool:
        tries.append(len(tries))
        if len(tries) < 3:
            raise Unavailable("PostgreSQL is away.")
        return store(*given, **more)

    monkeypatch.setattr(executions, "finish", finish)
    here = site({"actor": agent})
    run_id = here.submit("actor")

    assert here.advance(run_id).status is RunStatus.FINISHED
    assert (len(tries), len(deeds)) == (3, 1)
    with ledger.transaction(here.gateway) as conn:
        assert [item.state for item in executions.of_run(conn, run_id)] == ["finished"]


def test_a_run_that_always_breaks_is_stuck_with_its_last_error_until_a_person_tries_it_again(
    site: SiteMaker, held: Held
) -> None:
    calls: list[int] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        calls.append(len(calls))
        if len(calls) <= 3:
            raise ConnectionError(f"no line to the model, time {len(calls)}")
        return ModelResponse([TextPart("At last.")])

    here = site({"poison": Agent(FunctionModel(answer))})
    run_id = here.submit("poison")
    dispatcher = Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=9, redispatch=LONG, max_attempts=3)

    for _ in range(3):
        assert here.advance(run_id).status is RunStatus.QUEUED
        held.owner.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 s' WHERE id = %s", (run_id,))
        dispatcher.look()

    run = here.run(run_id)
    assert (run.status, len(calls)) == (RunStatus.STUCK, 3)
    assert run.error is not None
    assert "no line to the model, time 3" in run.error
    assert here.advance(run_id).status is RunStatus.STUCK
    with ledger.transaction(here.gateway) as conn:
        gateway_runs.retry(conn, run_id, "test", hint=LONG)
    run = here.advance(run_id)
    assert (run.status, run.output, run.error) == (RunStatus.FINISHED, "At last.", None)
    with ledger.transaction(here.gateway) as conn:
        told = [event.action for event in audit.of_run(conn, run_id)]
    assert told == [*["run.started", "run.postponed"] * 3, "run.stuck", "run.retried", "run.started", "run.finished"]


def test_of_two_workers_only_the_one_that_took_over_commits(
    site: SiteMaker, held: Held, worker_pool: ledger.Pool
) -> None:
    here = site({"actor": agent_calling(("nothing", {}))})
    run_id = here.submit("actor")
    with ledger.transaction(worker_pool) as conn:
        paused = runs.claim(conn, run_id, 0, owner="paused", lease=seconds(0.05))
    assert paused is not None
    _until(lambda: held.left(run_id) < 0)

    with ledger.transaction(worker_pool) as conn:
        taken = runs.claim(conn, run_id, 0, owner="second", lease=LONG)
        assert taken is not None
        assert not runs.finish(conn, run_id, paused.fence, output="late", version="1", usage={})
        assert runs.finish(conn, run_id, taken.fence, output="in time", version="1", usage={})

    assert here.run(run_id).output == "in time"


def _until(fact: Callable[[], bool]) -> None:
    waiter = threading.Event()
    assert any(fact() or waiter.wait(0.02) for _ in range(1000))


def test_a_standby_is_postgresql_that_is_away(worker_pool: ledger.Pool) -> None:
    def write() -> None:
        with ledger.transaction(worker_pool) as conn:
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute("UPDATE runs SET priority = 1")

    with pytest.raises(Unavailable, match="read-only"):
        write()


def test_nothing_ends_the_heartbeat(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    beat, broken = runs.beat, list[int]()

    def breaks_twice(*args: Any, **named: Any) -> Any:
        if len(broken) < 2:
            broken.append(1)
            raise RuntimeError("nobody thought of this")
        return beat(*args, **named)

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del messages, info
        await asyncio.sleep(6)
        return ModelResponse([TextPart("done")])

    monkeypatch.setattr(runs, "beat", breaks_twice)
    here = site({"slow": Agent(FunctionModel(answer))}, lease=seconds(4))

    assert here.advance(here.submit("slow")).status is RunStatus.FINISHED
    assert len(broken) == 2
