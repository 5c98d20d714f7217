"""Workers killed in the middle of tools, again and again, while runs flow: how many runs are lost, what happened twice.

A kill is steered by the tools themselves: it waits until its share of them has begun, then for the next one, and ends
the process that is in it. What happened is read from what the tools did outside (`effects`), not from what either
system believes. Whatever was asked is approved; where Banksman asks what became of a call, it is answered by that file,
as a person would look it up.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from banksman.bench import beside, effects, stack
from banksman.bench.load import Answered, Caller, Tell, Way
from banksman.bench.subject import prompt

_WORKERS = 2
_OVER = ("finished", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Crash:
    """What became of the runs."""

    runs: int
    kills: int
    finished: int
    lost: int
    """Had not finished when nothing had moved for long. (Celery over Redis gives a message that its worker took along
    to another one after an hour, unless told otherwise.)
    """
    repeated: int
    """Refunded more than once."""
    undone: int
    """Finished although nothing was refunded."""
    asked: int
    """Calls of which nobody but a person could say whether they had happened."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Journey:
    """How many runs flow, through how many kills."""

    runs: int
    kills: int
    clients: int
    tell: Tell
    patience: float = 60.0
    """Seconds without any move after which what has not ended is lost: every lease and second look is over by then."""

    def of_both(self, folder: Path) -> dict[str, Crash]:
        """The naive script, then Banksman, each with two workers on servers of its own."""
        found: dict[str, Crash] = {}
        log = folder / "naive.effects"
        with beside.running(folder / "killed-naive", _WORKERS, **{effects.LOG: str(log)}) as naive:
            found["naive"] = self.of(naive.way, log, naive.kill)
        log = folder / "banksman.effects"
        with stack.running(folder / "killed-banksman", _WORKERS, **{effects.LOG: str(log)}) as ours:
            found["banksman"] = self.of(ours.way, log, _kill)
        return found

    def of(self, way: Way, log: Path, kill: Callable[[int], None]) -> Crash:
        """Through one way in; `kill` ends the worker that a process belongs to and sees to it that another comes."""
        over, began = Event(), time.monotonic()
        orders = [f"A-{number}" for number in range(self.runs)]
        with ThreadPoolExecutor(self.clients + 1) as pool:
            submitting = [pool.submit(_submit, way, orders[number :: self.clients]) for number in range(self.clients)]
            of_run = dict[str, str]()
            deciding = pool.submit(_decide, way, log, over)
            try:
                killed = self._kill_all(log, kill)
                for future in submitting:
                    of_run |= future.result()
                finished = self._settled(way)
            finally:
                over.set()
            asked = deciding.result()
        done = effects.read(log).done
        return Crash(
            runs=self.runs,
            kills=killed,
            finished=len(finished),
            lost=self.runs - len(finished),
            repeated=sum(times > 1 for times in done.values()),
            undone=sum(not done[of_run[run_id]] for run_id in finished),
            asked=asked,
            seconds=time.monotonic() - began,
        )

    def _kill_all(self, log: Path, kill: Callable[[int], None]) -> int:
        """End a worker again and again, each time a little later within its tool; how many were ended."""

        def begun() -> int:
            return effects.read(log).begun

        for number in range(self.kills):
            # Spread over the flow: what comes after the last one has something left to do.
            due = self.runs * (number + 1) // (self.kills + 2)
            _until(lambda due=due: begun() > due, begun, self.patience)
            so_far = begun()
            if not _until(lambda so_far=so_far: begun() > so_far, begun, self.patience):
                return number
            time.sleep(2 * effects.HALF_SECONDS * number / self.kills)
            kill(effects.read(log).newest)
            self.tell("killing workers", number + 1, self.kills)
        return self.kills

    def _settled(self, way: Way) -> list[str]:
        """The runs that finished, once all have ended, or nothing has moved for long."""
        ended: dict[str, list[str]] = {}

        def many() -> int:
            return sum(map(len, ended.values()))

        def all_over() -> bool:
            with way.program() as program:
                ended.update({status: [run["id"] for run in program.runs(status, way.page)] for status in _OVER})
            self.tell("settling", many(), self.runs)
            return many() >= self.runs

        _until(all_over, many, self.patience)
        return ended["finished"]


def _kill(pid: int) -> None:
    """The stack starts another in its place."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _submit(way: Way, orders: list[str]) -> dict[str, str]:
    """Each run's order."""
    with way.program() as program:
        return {program.submit(prompt(order)): order for order in orders}


def _decide(way: Way, log: Path, over: Event) -> int:
    """Approve, and answer what became of calls, until all is over: how many calls had to be asked about."""
    asked = 0
    with way.person() as person:
        while not over.wait(0.05):
            for request in person.open_requests():
                with suppress(Answered):  # it was decided meanwhile, or there is another revision: the next list says
                    if request.get("kind") == "outcome":
                        settle(person, request, log)
                        asked += 1
                    else:
                        person.approve(request)
            for run in person.runs("stuck", way.page):
                with suppress(Answered):
                    person.ask("POST", f"/v1/runs/{run['id']}/retry")
    return asked


def settle(person: Caller, request: Mapping[str, Any], log: Path) -> None:
    """By what happened outside; a killed process writes nothing more, so the file can be believed."""
    if effects.read(log).done[request["arguments"]["order"]]:
        person.vote(request, "happened", answer="The refund is in the bank's log.")
    else:
        person.vote(request, "rerun")


def _until(done: Callable[[], bool], moved: Callable[[], int], patience: float) -> bool:
    """Wait for it; False once nothing has moved for so many seconds."""
    last, since = moved(), time.monotonic()
    while not done():
        if moved() != last:
            last, since = moved(), time.monotonic()
        if time.monotonic() - since > patience:
            return False
        time.sleep(0.02)
    return True
