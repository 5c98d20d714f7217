"""The crash variant of the benchmark sees what is lost, and the charts show what was measured."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from banksman import cli
from banksman.bench import beside, crash, effects, measure, plot
from banksman.bench.crash import Crash, Journey
from banksman.bench.load import Caller
from banksman.bench.measure import Figures, Plan


@pytest.mark.skipif(sys.platform != "linux", reason="workers are killed by process group, as Linux has it")
def test_runs_of_the_naive_script_are_lost_with_their_worker(tmp_path: Path) -> None:
    log = tmp_path / "effects"

    with beside.running(tmp_path / "naive", 1, **{effects.LOG: str(log)}) as naive:
        seen = Journey(8, 1, 2, tell_nobody, patience=3).of(naive.way, log, naive.kill)

    assert (seen.runs, seen.kills) == (8, 1)
    assert seen.finished + seen.lost == 8
    assert seen.lost > 0
    assert effects.read(log).begun >= 1


def tell_nobody(what: str, done: int, total: int) -> None:
    """Nobody looks."""
    del what, done, total


class Person(Caller):
    """Who votes, and remembers what."""

    def __init__(self, waiting: list[dict[str, Any]]) -> None:
        self.waiting, self.said = waiting, dict[str, str]()

    def vote(self, request: Any, verdict: str, **_: str) -> None:
        self.said[request["id"]] = verdict


def test_an_unknown_outcome_is_settled_by_what_happened_outside(tmp_path: Path) -> None:
    log, person = tmp_path / "effects", Person([])
    effects.leave(str(log), "A-1")

    for order in ("A-1", "A-2"):
        crash.settle(person, {"id": order, "arguments": {"order": order}}, log)

    assert person.said == {"A-1": "happened", "A-2": "rerun"}


def figures() -> Figures:
    """As measured, with fewer kills than were wanted."""
    parts = {"worker": 10.0, "gateway": 5.0, "notifier": 2.0, "postgres": 3.0}
    times = {"p50": 9.0, "p95": 15.0, "p99": 20.0}
    return Figures(
        plan=Plan(kills=3),
        floor=8.0,
        cpu=parts,
        runs_per_second=30.0,
        naive_cpu={"worker": 20.0, "gateway": 4.0},
        naive_runs_per_second=25.0,
        busy=times,
        calm=times,
        idle=parts,
        parked={0: parts, 1000: parts},
        live={},
        killed={"naive": Crash(10, 2, 7, 3, 0, 0, 0, 1.0), "banksman": Crash(10, 3, 10, 0, 0, 0, 4, 1.0)},
        machine={"cpus": "2"},
    )


def test_so_many_kills_are_told_as_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> Figures:
        return figures()

    monkeypatch.setattr(measure, "measure", measured)

    told = CliRunner().invoke(cli.app, ["bench", "--kills", "3"]).output

    assert re.search(r"^workers killed +runs +kills +finished", told, re.MULTILINE)
    assert re.search(r"^naive +10 +2 +7", told, re.MULTILINE)
    assert re.search(r"^banksman +10 +3 +10", told, re.MULTILINE)


def test_each_chart_stands_alone(tmp_path: Path) -> None:
    drawn = {path.name: path.read_text() for path in plot.draw(figures(), tmp_path / "charts")}

    assert set(drawn) == {f"bench-{name}.svg" for name in ("cpu", "latency", "throughput", "parked", "killed")}
    assert "asked a person" in drawn["bench-killed.svg"]
    assert "naive, 2 kills" in drawn["bench-killed.svg"]
    assert ">1,000 parked<" in drawn["bench-parked.svg"]
    assert not [name for name, text in drawn.items() if "<script" in text or "href=" in text]
