"""A worker that stops hands back what it can, begins nothing more, and stores what has run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman import ledger
from banksman.ids import RunId
from banksman.ledger import audit, executions, runs
from banksman.states import RunStatus
from banksman_worker import ending, segment
from banksman_worker.lease import Lease
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import agent_calling


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Slow:
    """A site whose one tool stands still until it is released, and a thread that carries the run to it."""

    def __init__(self, site: SiteMaker) -> None:
        self.entered, self.released = threading.Event(), threading.Event()
        agent = agent_calling(("act", {}))

        @agent.tool_plain(requires_approval=True)
        def act() -> str:
            self.entered.set()
            assert self.released.wait(10)
            return "done"

        del act
        self.here: Site = site({"slow": agent})
        self.run_id: RunId
        self.run_id, [request] = self.here.waiting("slow")
        self.here.vote(request, "approve")
        self.thread = threading.Thread(target=segment.advance, args=(self.here.worker, self.run_id, 1))
        self.thread.start()
        assert self.entered.wait(10)
        [self.lease] = self.here.worker.leases.held()

    def states(self) -> list[str]:
        with ledger.transaction(self.here.gateway) as conn:
            return [item.state for item in executions.of_run(conn, self.run_id)]


def test_a_run_whose_tool_is_under_way_is_not_handed_back(site: SiteMaker) -> None:
    slow = Slow(site)

    slow.lease.drain()
    time.sleep(0.2)

    assert slow.lease.stopped is None
    slow.released.set()
    slow.thread.join(10)
    assert slow.here.run(slow.run_id).status is RunStatus.FINISHED


def test_what_ran_under_a_lost_lease_is_waited_for_and_stored(site: SiteMaker) -> None:
    slow = Slow(site)
    leases = slow.here.worker.leases

    slow.lease.stop("lost")
    slow.thread.join(10)

    assert leases.held() == []
    assert leases.unstored() == [slow.lease]
    slow.released.set()
    until(lambda: not leases.unstored())
    assert slow.states() == ["finished"]


def test_a_run_that_is_handed_back_begins_no_tool(site: SiteMaker) -> None:
    effects: list[str] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        [lease] = here.worker.leases.held()
        lease.stopped = "drained"  # as the drain says on the loop, just before the tool would start
        return ModelResponse([ToolCallPart("act", {}, tool_call_id="c0")])

    agent: Agent[Any, str] = Agent(FunctionModel(answer))

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def act() -> str:
        effects.append("done")
        return "done"

    del act
    here = site({"quick": agent})

    run = here.advance(here.submit("quick"))

    assert effects == []
    assert run.status is RunStatus.QUEUED


def test_what_was_no_longer_held_is_not_said_to_be_handed_back(site: SiteMaker) -> None:
    here = site({"plain": agent_calling()})
    run_id = here.submit("plain")
    drained = cast(Lease, SimpleNamespace(stopped="drained"))

    def told() -> int:
        with ledger.transaction(here.gateway) as conn:
            return [event.action for event in audit.of_run(conn, run_id)].count("run.released")

    with ledger.transaction(here.worker.pool) as conn:
        lost = runs.claim(conn, run_id, 0, owner="w", lease=timedelta(seconds=-1))
        held = runs.claim(conn, run_id, 0, owner="w", lease=timedelta(hours=1))
    assert lost is not None
    assert held is not None

    ending.stopped(here.worker, lost, drained, RuntimeError())
    before = told()
    ending.stopped(here.worker, held, drained, RuntimeError())

    assert (before, told()) == (0, 1)
