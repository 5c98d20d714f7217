"""Runs that are all under way at once in one worker process: what they hold in memory, and whether any lost its lease.

Each waits for a model that takes longer than a lease, so that every run lives by its heartbeats alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from banksman.bench import memory, stack
from banksman.bench.cost import resident_mib

_LEASES = 2
_START_SECONDS = 0.15
"""Within so long one run is under way, also where the machine is busy with other things."""


@dataclass(frozen=True, slots=True)
class Live:
    """What was seen while so many were under way."""

    mib: float
    """What the worker held."""
    repeated: int
    """Runs that were begun again, because their lease had run out."""


def at_once(folder: Path, counts: Sequence[int], tell: Callable[[str, int, int], None]) -> dict[int, Live]:
    """The worker with none under way, and then with so many, on a stack whose worker may have them all."""
    most = max(counts)
    with stack.running(folder, 1, BANKSMAN_CONCURRENCY=str(most), BANKSMAN_LEASE_SECONDS="15") as up:
        found = {0: Live(_worker_mib(up), 0)}
        for count in sorted(counts):
            before = _repeated(up)
            seconds = 15 * _LEASES + count * _START_SECONDS
            batch = memory.submit(up.way, "thinker", str(seconds), count)
            memory.until(up.way, batch, "running", count, lambda done, total=count: tell("runs under way", done, total))
            mib = _worker_mib(up)
            memory.until(up.way, batch, "finished", count, lambda done, total=count: tell("ending them", done, total))
            found[count] = Live(mib, _repeated(up) - before)
    return found


def _repeated(up: stack.Stack) -> int:
    """How many segments were begun again since the worker started."""
    return int(up.metric("worker-1", "banksman_segments_repeated_total"))


def _worker_mib(up: stack.Stack) -> float:
    return resident_mib({"worker": up.pids()["worker-1"]})["worker"]
