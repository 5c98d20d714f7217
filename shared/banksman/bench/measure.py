"""One measurement: the floor, the naive script and Banksman in turns on this machine, as figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from banksman.bench import beside, live, load, memory, stack
from banksman.bench.cost import by_part
from banksman.bench.crash import Crash, Journey
from banksman.bench.live import Live
from banksman.bench.load import Tell, Way
from banksman.errors import BanksmanError

OURS = ("worker", "gateway", "notifier")
"""What counts as Banksman; PostgreSQL, Valkey and the mail catcher are counted apart."""

_FLOOR_RUNS = 200
_WARM_UP_RUNS = 50
_SINGLES = 50
_SETTLE_SECONDS = 1.0
_LIBRARIES = ("pydantic-ai-slim", "pydantic-deep", "celery", "fastapi", "psycopg")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is measured."""

    runs: int = 300
    clients: int = 8
    workers: int = 1
    repeat: int = 3
    idle_seconds: float = 5.0
    parked: tuple[int, ...] = ()
    """So many runs are parked at last, to see what they hold in memory."""
    live: tuple[int, ...] = ()
    """So many runs are under way at once in one worker, on a stack of its own."""
    kills: int = 0
    """So many times a worker is killed in the middle of a tool, at the very end and on servers of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured: medians over the repetitions. Times are milliseconds, CPU is per approved run."""

    plan: Plan
    floor: float
    """CPU of the bare agent library."""
    cpu: Mapping[str, float]
    """CPU of each part, its idle cost taken off."""
    runs_per_second: float
    naive_cpu: Mapping[str, float]
    """CPU of the naive script's worker and gateway."""
    naive_runs_per_second: float
    busy: Mapping[str, float]
    """Decision → tool started, while all runs go at once: p50, p95, p99."""
    calm: Mapping[str, float]
    """The same, with one run at a time."""
    idle: Mapping[str, float]
    """CPU of each part per second in which nothing happens."""
    parked: Mapping[int, Mapping[str, float]]
    """MiB of each part while so many runs wait for people."""
    live: Mapping[int, Live]
    """One worker while so many runs are under way; empty unless asked for."""
    killed: Mapping[str, Crash]
    """What became of the runs whose workers were killed, by whose they were; empty unless asked for."""
    machine: Mapping[str, str]

    @property
    def naive(self) -> float:
        """CPU of the naive script's processes."""
        return sum(self.naive_cpu.values())

    @property
    def ours(self) -> float:
        """CPU of Banksman's own processes."""
        return sum(self.cpu[name] for name in OURS)

    def as_json(self) -> dict[str, Any]:
        """Everything, with the ratios that matter."""
        return {
            "plan": {name: getattr(self.plan, name) for name in Plan.__slots__},
            "machine": dict(self.machine),
            "live": {str(count): asdict(seen) for count, seen in self.live.items()},
            "killed": {name: asdict(found) for name, found in self.killed.items()},
            "floor_cpu_ms_per_run": self.floor,
            "cpu_ms_per_run": dict(self.cpu),
            "banksman_cpu_ms_per_run": self.ours,
            "banksman_over_floor": self.ours / self.floor,
            "runs_per_second": self.runs_per_second,
            "naive": {"cpu_ms_per_run": dict(self.naive_cpu), "runs_per_second": self.naive_runs_per_second},
            "banksman_over_naive": {
                "cpu": self.ours / self.naive,
                "runs_per_second": self.runs_per_second / self.naive_runs_per_second,
            },
            "decision_to_tool_started_ms": {"calm": dict(self.calm), "busy": dict(self.busy)},
            "idle_cpu_ms_per_second": dict(self.idle),
            "mib_while_parked": {str(count): dict(mib) for count, mib in self.parked.items()},
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    name: str
    way: Way
    pids: Mapping[str, int]
    idle: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Burst:
    ids: Sequence[str]
    cpu: Mapping[str, float]
    runs_per_second: float


def measure(plan: Plan, tell: Tell) -> Figures:
    """Start a stack, measure, stop it. Nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="banksman-bench-") as folder:
        tell("starting a stack", 0, 1)
        with (
            stack.running(Path(folder) / "banksman", plan.workers) as up,
            beside.running(Path(folder) / "naive", plan.workers) as naive,
        ):
            way, pids = up.way, up.pids()
            warm, few = min(_WARM_UP_RUNS, plan.runs), min(_SINGLES, plan.runs)
            load.one_by_one(way, 10, lambda done: tell("warming up", done, 10))
            for each in (way, naive.way):
                load.all_at_once(each, warm, plan.clients, lambda done: tell("warming up", done, warm))
            time.sleep(_SETTLE_SECONDS)
            idle = _idle(pids, plan.idle_seconds, tell)
            ours = _Asked("Banksman", way, pids, idle)
            theirs = _Asked("the naive script", naive.way, naive.pids, _idle(naive.pids, plan.idle_seconds, tell))
            floors: list[float] = []
            bursts: list[_Burst] = []
            naives: list[_Burst] = []
            latencies: list[float] = []
            for number in range(1, plan.repeat + 1):
                tell("the floor", number, plan.repeat)
                floors.append(_floor())
                naives.append(_burst(theirs, plan, tell))
                bursts.append(_burst(ours, plan, tell))
                latencies += load.latencies(way, bursts[-1].ids)
            singles = load.one_by_one(way, few, lambda done: tell("one at a time", done, few))
            calm = load.latencies(way, singles)
            with way.program() as program:
                program.none_lost("waiting")
            parked = memory.while_parked(way, pids, plan.parked, partial(tell, "parking"))
        together = live.at_once(Path(folder) / "live", plan.live, tell) if plan.live else {}
        killed: Mapping[str, Crash] = {}
        if plan.kills:
            killed = Journey(plan.runs, plan.kills, plan.clients, tell).of_both(Path(folder))
    return Figures(
        plan=plan,
        floor=median(floors),
        cpu=_medians(bursts),
        runs_per_second=median(burst.runs_per_second for burst in bursts),
        naive_cpu=_medians(naives),
        naive_runs_per_second=median(burst.runs_per_second for burst in naives),
        busy=_percentiles(sorted(latencies)),
        calm=_percentiles(calm),
        idle={name: seconds * 1000 for name, seconds in idle.items()},
        parked=parked,
        live=together,
        killed=killed,
        machine=_machine(),
    )


def _floor() -> float:
    argv = [sys.executable, "-m", "banksman.bench.floor", "--runs", str(_FLOOR_RUNS)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BanksmanError(f"The floor cannot be measured: {done.stderr[-1000:]}")
    return float(json.loads(done.stdout)["cpu_ms"])


def _idle(pids: Mapping[str, int], seconds: float, tell: Tell) -> dict[str, float]:
    """CPU seconds of each part in a second without work."""
    before, began = by_part(pids), time.monotonic()
    while (gone := time.monotonic() - began) < seconds:
        tell("idling", int(gone * 10), int(seconds * 10))
        time.sleep(0.1)
    after = by_part(pids)
    return {name: (after[name] - before[name]) / gone for name in after}


def _burst(asked: _Asked, plan: Plan, tell: Tell) -> _Burst:
    before, began = by_part(asked.pids), time.monotonic()
    ids, seconds = load.all_at_once(asked.way, plan.runs, plan.clients, lambda done: tell(asked.name, done, plan.runs))
    time.sleep(_SETTLE_SECONDS)  # what goes on after the last run belongs to the runs as well
    gone, after = time.monotonic() - began, by_part(asked.pids)
    cpu = {name: (after[name] - before[name] - asked.idle[name] * gone) / plan.runs * 1000 for name in after}
    return _Burst(ids, cpu, plan.runs / seconds)


def _medians(bursts: Sequence[_Burst]) -> dict[str, float]:
    return {name: median(burst.cpu[name] for burst in bursts) for name in bursts[0].cpu}


def _percentiles(ascending: Sequence[float]) -> dict[str, float]:
    last = len(ascending) - 1
    return {f"p{share}": ascending[round(last * share / 100)] * 1000 for share in (50, 95, 99)}


def _machine() -> dict[str, str]:
    found = {"cpus": str(os.cpu_count()), "python": platform.python_version(), "system": platform.platform()}
    return found | {name: version(name) for name in _LIBRARIES}
