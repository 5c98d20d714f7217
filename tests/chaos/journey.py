"""The chaos journey: for minutes everything is killed, frozen, stopped, emptied and cut off in turn, while runs flow.

What is done and when follows from the seed; whom it hits follows from what the workers are doing, since they are hit
in the middle of tools. Then the faults stop, and within a stated time every run must have come to its end.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.chaos import agents, flow
from tests.chaos.hosts import FarHost
from tests.chaos.site import Site, until

LEASE = 4.0
LONGEST_FREEZE = 6.0
"""Longer than a lease: a worker that thaws finds that its runs were taken from it."""
FAR = "worker-far"
CALM_WITHIN = 90.0
"""So long after the last fault every run must be over."""
SETTINGS = {"BANKSMAN_LEASE_SECONDS": f"{LEASE}", "BANKSMAN_SWEEP_SECONDS": "0.25", "BANKSMAN_REDISPATCH_SECONDS": "3"}
_NO_START = "banksman agent worker: PostgreSQL cannot be reached"
DECK = {
    "kill a worker": 5,
    "freeze a worker": 3,
    "kill the gateway": 2,
    "kill the notifier": 1,
    "stop PostgreSQL (fast)": 1,
    "stop PostgreSQL (immediate)": 1,
    "flush the broker": 1,
    "kill the broker": 1,
    "freeze the broker": 1,
    "hang the broker's line": 1,
    "cut the broker's line": 1,
    "cut the far host off": 2,
}
"""How often each fault comes in one round of the deck."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to do: when, what, and for how long."""

    at: float
    kind: str
    seconds: float
    part: float
    """A number from 0 to 1, for whatever else is left to chance."""


def plan(seed: int, seconds: float) -> list[Fault]:
    """The faults of a seed: shuffled decks, one card every second or two."""
    dice = random.Random(seed)
    planned: list[Fault] = []
    at = 1.0
    for kind in _cards(dice):
        at += dice.uniform(0.8, 2.4)
        if at >= seconds:
            return planned
        longest = LONGEST_FREEZE if _outlasts_a_lease(kind) else 2.5 if "PostgreSQL" in kind else 4.0
        shortest = LEASE * 1.1 if _outlasts_a_lease(kind) else 0.3
        planned.append(Fault(at, kind, dice.uniform(shortest, longest), dice.random()))
    raise AssertionError


def _outlasts_a_lease(kind: str) -> bool:
    return kind in {"freeze a worker", "cut the far host off"}


def _cards(dice: random.Random) -> Iterator[str]:
    deck = [kind for kind, times in DECK.items() for _ in range(times)]
    while True:
        dice.shuffle(deck)
        yield from deck


@dataclass(slots=True)
class Breaker:
    """Does what is planned, and undoes it in time. One thread: a server ends with the thread that started it."""

    site: Site
    say: Callable[[str], None]
    workers: dict[str, int]
    tail: flow.Tail
    far: FarHost | None
    """Where the last worker lives, if there can be another host."""
    done: Counter[str] = field(default_factory=Counter[str])
    hits: list[flow.Hit] = field(default_factory=list[flow.Hit])
    died: list[str] = field(default_factory=list[str])
    """Processes that ended though nobody had killed them."""
    not_started: int = 0
    """How many of the processes that ended by themselves had never begun."""
    _undoing: list[tuple[float, int, str, Callable[[], object]]] = field(
        default_factory=list[tuple[float, int, str, "Callable[[], object]"]]
    )
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _broken: set[str] = field(default_factory=set[str])

    def do(self, fault: Fault) -> None:
        """One fault, unless what it breaks is broken already."""
        what = fault.kind.rpartition(" the ")[2] or fault.kind
        thing = "PostgreSQL" if "PostgreSQL" in what else "broker" if "broker" in what else what
        if "worker" in fault.kind:
            self._at_a_worker(fault)
            return
        if thing in self._broken or (thing == "far host off" and self.far is None):
            return
        self.done[fault.kind] += 1
        self.say(f"{fault.kind} for {fault.seconds:.1f} s")
        site = self.site
        match fault.kind:
            case "kill the gateway":
                site.kill("gateway")
                self._later(fault, thing, lambda: self._start("gateway"))
            case "kill the notifier":
                site.kill("notifier")
                self._later(fault, thing, lambda: self._start("notifier"))
            case "stop PostgreSQL (fast)" | "stop PostgreSQL (immediate)":
                site.stop_postgres(signal.SIGINT if "fast" in fault.kind else signal.SIGQUIT)
                self._later(fault, thing, site.start_postgres)
            case "flush the broker":
                site.flush()
            case "kill the broker":
                site.kill_valkey()
                self._later(fault, thing, site.start_valkey)
            case "freeze the broker":
                pid = site.server("valkey")
                os.kill(pid, signal.SIGSTOP)
                self._later(fault, thing, lambda: os.kill(pid, signal.SIGCONT))
            case "hang the broker's line":
                site.proxy.hang()
                self._later(fault, thing, site.proxy.heal)
            case "cut the broker's line":
                site.proxy.cut()
                self._later(fault, thing, site.proxy.heal)
            case _:
                assert self.far is not None
                self.far.cut()
                self._later(fault, thing, self.far.heal)

    def _at_a_worker(self, fault: Fault) -> None:
        """The one in which a tool begins next, somewhere within that tool."""
        free = {pid: name for name, pid in self.workers.items() if name not in self._broken}
        if not free:
            return
        pid = self.tail.next_begin(free.keys(), within=1.5)
        if pid is None:
            pid = sorted(free)[int(fault.part * len(free))]
        time.sleep(fault.part * 2 * agents.HALF * 0.9)
        name, at = free[pid], time.time()
        if fault.kind == "kill a worker":
            self.site.kill(name)
            self._start(name)
        else:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            self._later(fault, name, lambda: os.kill(pid, signal.SIGCONT))
        caught = self.tail.caught(pid)
        self.hits.append(flow.Hit(fault.kind, at, caught))
        self.done[fault.kind] += 1
        self.say(f"{fault.kind}: {name} ({pid}), in a tool for {len(caught)} runs")

    def _later(self, fault: Fault, thing: str, undo: Callable[[], object]) -> None:
        self._broken.add(thing)
        heapq.heappush(self._undoing, (time.monotonic() + fault.seconds, next(self._numbers), thing, undo))

    def mend(self, *, all_of_it: bool = False) -> None:
        """Undo what has been broken for long enough, and notice who ended by himself."""
        while self._undoing and (all_of_it or self._undoing[0][0] <= time.monotonic()):
            _, _, thing, undo = heapq.heappop(self._undoing)
            undo()
            self._broken.discard(thing)
        for name in [name for name in self.site.services if not self.site.lives(name)]:
            # Without PostgreSQL a worker does not start, and says so: whoever keeps it up starts it again.
            if self.site.said().count(_NO_START) > self.not_started:
                self.not_started += 1
            else:
                self.died.append(name)
                self.say(f"{name} has ended, and nobody had killed it")
            self.site.services.pop(name)
            self._start(name)

    def _start(self, name: str) -> None:
        match name:
            case "gateway":
                self.site.gateway(wait=False)
            case "notifier":
                self.site.notifier(lease=LEASE)
            case _:
                self.workers[name] = self.site.worker(name, host=self.far if name == FAR else None)


@dataclass(slots=True)
class Report:
    """What a journey came to."""

    seed: int
    faults: Counter[str]
    runs: int
    calm_after: float
    recovered: dict[str, list[float]]
    asked: Counter[str]
    outcomes: Counter[str]
    retried: int
    died: Sequence[str]
    verdict: flow.Verdict

    @property
    def wrong(self) -> list[str]:
        return [*self.verdict.wrong, *(f"{name} ended, and nobody had killed it" for name in self.died)]

    def lines(self) -> list[str]:
        """For people."""
        found = self.verdict
        return [
            f"seed {self.seed}: {sum(self.faults.values())} faults",
            *(f"  {times:3} × {kind}" for kind, times in sorted(self.faults.items())),
            f"{self.runs} runs, over {self.calm_after:.1f} s after the last fault: {dict(found.states)}",
            f"asked: {dict(self.asked)}; unknown outcomes settled: {dict(self.outcomes)}; retried: {self.retried}",
            f"effects {found.effects}; repeated {found.repeated}, unapproved {found.unapproved}, lost {found.lost}",
            f"an idempotent tool ran again {found.repeated_idempotent} times",
            *(f"{kind}, to the next claim: {flow.spoken(times)}" for kind, times in sorted(self.recovered.items())),
            *(f"WRONG: {line}" for line in self.wrong),
        ]


def run(
    site: Site,
    *,
    minutes: float,
    seed: int,
    say: Callable[[str], None],
    far: FarHost | None = None,
    pace: float = 5.0,
    workers: int = 3,
) -> Report:
    """The journey, on a fresh site with `SETTINGS` whose servers keep what they have acknowledged."""
    site.gateway()
    site.notifier(lease=LEASE)
    names = {f"worker-{number}": site.worker(f"worker-{number}") for number in range(1, workers)}
    names[FAR] = site.worker(FAR, host=far)
    site.announced()
    supply = flow.orders(int(minutes * 60 * pace) + 1, seed=seed, prefix=f"c{seed}")
    program = flow.Program(site.program(), pace=pace, most=150, supply=supply)
    people = [site.reviewer(f"{name}@example.org") for name in ("ana", "ben")]
    persons = [
        flow.Person(who, site, program.orders, share=share, of=2, patience=LONGEST_FREEZE + 2)
        for share, who in enumerate(people)
    ]
    breaker = Breaker(site, say, names, flow.Tail(site), far)
    began = time.monotonic()
    for looping in (program, *persons):
        looping.start()
    try:
        for fault in plan(seed, minutes * 60):
            while time.monotonic() - began < fault.at:
                breaker.mend()
                flow.going_on(program, *persons)
                time.sleep(0.02)
            breaker.do(fault)
        breaker.mend(all_of_it=True)
        program.finish()
        say("the faults are over")
        calm = time.monotonic()
        with suppress(AssertionError):  # whatever is still open then, the checker names
            until(lambda: flow.going_on(program, *persons) and program.is_over(), within=CALM_WITHIN)
        calm_after = time.monotonic() - calm
    finally:
        breaker.mend(all_of_it=True)
        for looping in (program, *persons):
            looping.stop()
    breaker.mend()
    verdict = flow.check(site, site.program(), program, persons)
    recovered = flow.recoveries(site.program(), program, breaker.hits)
    asked, outcomes = Counter[str](), Counter[str]()
    for person in persons:
        asked += person.asked
        outcomes += person.outcomes
    retried = sum(sum(person.retried.values()) for person in persons)
    return Report(
        seed, breaker.done, len(program.runs), calm_after, recovered, asked, outcomes, retried, breaker.died, verdict
    )
