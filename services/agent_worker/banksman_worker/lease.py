"""Leases: one heartbeat for all runs of the process, and the end of every run whose lease can no longer be trusted.

A run that the database no longer grants us, or that we could not renew in time, is cancelled here before its lease
ends by the database's clock. The fence in every write makes the rest safe; this makes it prompt. Renewing and watching
have a thread each, because a PostgreSQL that hangs holds the first of them for as long as it likes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from banksman import ids, ledger, logs, metrics, tracing
from banksman.errors import Unavailable
from banksman.ids import RunId
from banksman.ledger import runs
from banksman.records import Claim
from banksman_worker.loop import Loop

Reason = Literal["lost", "cancelled", "drained"]
clock = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Seconds that go on while the machine is suspended, as PostgreSQL's do elsewhere."""

log = logs.get(__name__)


@dataclass(slots=True)
class Lease:
    """One claimed run in this process, until when it is ours, and why it was stopped, if it was."""

    claim: Claim
    until: float
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any] | None = None
    in_flight: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    stopped: Reason | None = None

    @property
    def over(self) -> bool:
        """Whether another worker may hold the run by now."""
        return clock() > self.until or self.stopped == "lost"

    def stop(self, reason: Reason) -> None:
        """Cancel the conversation, from any thread; the first reason stays."""
        if self.stopped is None:
            self.stopped = reason
            metrics.STOPPED.labels(reason).inc()
            if self.task is not None:
                self.loop.call_soon_threadsafe(self.task.cancel)

    def drain(self) -> None:
        """Stop for a hand-over unless a tool is under way: said and done on the loop, where tools are started."""
        self.loop.call_soon_threadsafe(lambda: None if self.in_flight else self.stop("drained"))

    def let_tools_end(self, within: timedelta) -> None:
        """Wait, beside the loop, for the tools that have started, and no longer than `within`."""

        async def ended() -> None:
            if self.in_flight:
                await asyncio.wait(set(self.in_flight), timeout=within.total_seconds())

        # A tool that blocks the loop itself must not hold this thread for ever.
        waiting = asyncio.run_coroutine_threadsafe(ended(), self.loop)
        concurrent.futures.wait([waiting], timeout=within.total_seconds() + 1)
        waiting.cancel()


HELD: ContextVar[Lease] = ContextVar("HELD")
"""The lease under which a segment is carried out, for tools that wait for their turn."""


class Leases:
    """Every run that this process holds."""

    def __init__(self, pool: ledger.Pool, lease: timedelta, loop: Loop) -> None:
        self._pool, self._lease, self._loop = pool, lease, loop
        self._held: dict[RunId, Lease] = {}
        self._ended: list[Lease] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.last_beat = time.monotonic()
        self._again = False
        self._threads = [
            threading.Thread(target=self._keep, name="leases", daemon=True),
            threading.Thread(target=self._watch, name="lease-watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def holding(self, claim: Claim, claimed_at: float) -> Generator[Lease]:
        """Keep a claim alive for the length of the block."""
        lease = Lease(claim, claimed_at + self._lease.total_seconds(), self._loop.loop)
        with self._lock:
            self._held[claim.run_id] = lease
        before = HELD.set(lease)  # the loop takes it over with the conversation
        try:
            with metrics.segment(claim.agent, again=claim.attempts > 1), _traced(claim) as facts:
                yield lease
                facts["stopped"] = lease.stopped
        finally:
            HELD.reset(before)
            with self._lock:
                if self._held.get(claim.run_id) is lease:
                    del self._held[claim.run_id]
                self._ended = [item for item in (*self._ended, lease) if item.in_flight]

    def held(self) -> list[Lease]:
        """The leases of this moment."""
        with self._lock:
            return list(self._held.values())

    def unstored(self) -> list[Lease]:
        """Claims that are over and whose tools still run, or whose results are not stored yet."""
        with self._lock:
            return [item for item in self._ended if item.in_flight]

    def close(self) -> None:
        """Stop the heartbeat."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _keep(self) -> None:
        beat = self._lease.total_seconds() / 3
        while not self._stopping.wait(beat / 4):
            if self._again or time.monotonic() - self.last_beat >= beat:
                try:
                    self._beat()
                except Exception:  # without this thread every run of the process would lose its lease
                    log.exception("A heartbeat failed.")

    def _watch(self) -> None:
        beat = self._lease.total_seconds() / 3
        while not self._stopping.wait(beat / 8):
            for lease in self.held():
                if clock() > lease.until - beat / 2:
                    lease.stop("lost")

    def _beat(self) -> None:
        leases = [item for item in self.held() if item.stopped != "lost"]
        started, until = time.monotonic(), clock() + self._lease.total_seconds()
        if not leases:
            self.last_beat = started
            return
        if started - self._loop.last_tick > self._lease.total_seconds():
            log.error("The event loop is stuck in a tool that never waits; its runs are given up.", runs=len(leases))
            return
        try:
            with ledger.transaction(self._pool) as conn:
                granted = runs.beat(conn, {item.claim.run_id: item.claim.fence for item in leases}, lease=self._lease)
        except Unavailable as error:
            log.warning("The heartbeat cannot reach PostgreSQL.", error=str(error)[:200], runs=len(leases))
            return
        self.last_beat, self._again = started, False
        for item in leases:
            match granted.get(item.claim.run_id, "lost"):
                case "lost":
                    item.stop("lost")
                case "busy":
                    self._again = True
                case asked:
                    item.until = until
                    if asked == "stop":
                        item.stop("cancelled")


def _traced(claim: Claim) -> AbstractContextManager[dict[str, str | int | None]]:
    """A span of the run's trace that points at the segment before it, and in a child run at its parent."""
    before = [tracing.segment(claim.run_id, claim.segment - 1)] if claim.segment else []
    parent = [] if claim.parent_id is None else [tracing.submission(claim.parent_id)]
    first = claim.attempts == 1
    return tracing.span(
        f"segment {claim.agent}",
        claim.run_id,
        at=tracing.segment(claim.run_id, claim.segment) if first else None,
        links=[*before, *parent, *([] if first else [tracing.segment(claim.run_id, claim.segment)])],
        agent=claim.agent,
        segment=claim.segment,
        attempt=claim.attempts,
        parent=None if claim.parent_id is None else ids.show("run", claim.parent_id),
    )
