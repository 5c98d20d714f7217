"""`banksman bench`: what an approved run costs on this machine, beside the bare agent library."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from banksman.cli import given, machine, show

if TYPE_CHECKING:
    from banksman.bench.measure import Figures

_APART = {"postgres": "PostgreSQL", "valkey": "Valkey", "mail": "mail catcher"}


def bench(
    *,
    runs: Annotated[int, typer.Option(min=10, help="Runs in each repetition.")] = 300,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Threads that submit.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Repetitions; the median counts.")] = 3,
    parked: Annotated[
        list[int] | None, typer.Option(min=1, help="Park so many runs at the end and measure memory (repeatable).")
    ] = None,
    live: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1000, help="Have so many runs under way at once in one worker (repeatable)."),
    ] = None,
    kills: Annotated[
        int, typer.Option(min=0, help="Kill a worker so many times at the end, and see what is lost or done twice.")
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw charts of it there, as SVG.", show_default=False)
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Measure CPU per approved run, runs per second and decision → tool started, beside the agent library alone and a
    naive script of Celery and Redis that keeps nothing.
    """
    with machine.extras("all"):
        from banksman.bench import measure
    if plot is not None:
        with machine.extras("plot"):
            importlib.import_module("banksman.bench.plot")

    plan = measure.Plan(
        runs=runs,
        clients=clients,
        workers=workers,
        repeat=repeat,
        parked=tuple(parked or ()),
        live=tuple(live or ()),
        kills=kills,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        figures = measure.measure(
            plan, lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
        )
    if plot is not None:
        from banksman.bench import plot as plotting

        for path in plotting.draw(figures, plot):
            show.complain(f"drew {path}")
    if as_json:
        show.as_json(figures.as_json())
    else:
        _print(figures)


def _print(figures: Figures) -> None:
    from banksman.bench.measure import OURS

    rows = [["bare agent library (floor)", _number(figures.floor), "1.00", ""]]
    rows += [_row("naive Celery and Redis", figures, figures.naive, None)]
    rows += [_row(f"  {name}", figures, figures.cpu[name], figures.idle[name]) for name in OURS]
    rows += [_row("Banksman", figures, figures.ours, sum(figures.idle[name] for name in OURS))]
    rows += [
        _row(word, figures, figures.cpu[name], figures.idle[name])
        for name, word in _APART.items()
        if name in figures.cpu
    ]
    show.table(["CPU", "ms per run", "× floor", "idle ms/s"], rows)
    typer.echo("")
    show.table(
        ["decision → tool started", "p50 ms", "p95 ms", "p99 ms"],
        [
            [name, *(_number(found[share]) for share in ("p50", "p95", "p99"))]
            for name, found in (("one run at a time", figures.calm), ("all at once", figures.busy))
        ],
    )
    if len(figures.parked) > 1:
        typer.echo("")
        parts = list(figures.parked[0])
        show.table(
            ["runs parked", *(f"{part}, MiB" for part in parts)],
            [[f"{count:,}", *(_number(mib[part]) for part in parts)] for count, mib in figures.parked.items()],
        )
    if figures.live:
        typer.echo("")
        show.table(
            ["runs under way in one worker", "worker, MiB", "begun again"],
            [[f"{count:,}", _number(seen.mib), str(seen.repeated)] for count, seen in figures.live.items()],
        )
    if figures.killed:
        typer.echo("")
        columns = ("kills", "finished", "lost", "repeated", "undone", "asked")
        show.table(
            ["workers killed", "runs", *columns, "s"],
            [
                [name, str(found.runs), *(str(getattr(found, column)) for column in columns), _number(found.seconds)]
                for name, found in figures.killed.items()
            ],
        )
    plan = figures.plan
    typer.echo(
        f"\n{figures.runs_per_second:.1f} runs/s, the naive script {figures.naive_runs_per_second:.1f}, each with"
        f" {plan.workers} worker and {plan.clients} clients on {figures.machine['cpus']} CPUs"
        f" ({plan.repeat} × {plan.runs} runs; medians)"
    )


def _row(name: str, figures: Figures, cpu: float, idle: float | None) -> list[str]:
    return [name, _number(cpu), f"{cpu / figures.floor:.2f}", "" if idle is None else _number(idle)]


def _number(value: float) -> str:
    return f"{value:.2f}"
