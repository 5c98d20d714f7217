"""Charts of one measurement, as SVG files that stand alone: no script, nothing fetched."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pygal  # pyright: ignore[reportMissingTypeStubs]
from pygal.style import Style  # pyright: ignore[reportMissingTypeStubs]

from banksman.bench.measure import OURS

if TYPE_CHECKING:
    from banksman.bench.measure import Figures

# For its maps it hangs a finder of the old kind into all later imports, of which Python 3.11 warns each time.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != pygal.__name__]

# What it would read the chart's settings from, if its own script were there.
_SCRIPT = re.compile(rb"<script.*?</script>", re.DOTALL)
_STYLE = Style(
    background="white",
    plot_background="white",
    font_family="system-ui, sans-serif",
    colors=("#0b5fae", "#c2410c", "#4d7c0f", "#6b7280"),
)
_COLUMNS = {"lost": "lost", "repeated": "done twice", "asked": "asked a person"}


def draw(figures: Figures, folder: Path) -> list[Path]:
    """Write the charts into a folder, made where it is missing; those of what was not measured are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {"cpu": _cpu(figures), "latency": _latency(figures), "throughput": _throughput(figures)}
    if len(figures.parked) > 1:
        charts["parked"] = _parked(figures)
    if figures.killed:
        charts["killed"] = _killed(figures)
    paths = [folder / f"bench-{name}.svg" for name in charts]
    for path, chart in zip(paths, charts.values(), strict=True):
        path.write_bytes(_SCRIPT.sub(b"", chart.render()))
    return paths


def _cpu(figures: Figures) -> Any:
    columns: Mapping[str, Mapping[str, float]] = {
        "agent library": {"agent library": figures.floor},
        "naive script": {f"{name}": value for name, value in figures.naive_cpu.items()},
        "Banksman": {name: figures.cpu[name] for name in OURS},
    }
    parts = list(dict.fromkeys(part for column in columns.values() for part in column))
    return _bars(
        "CPU per approved run, ms",
        list(columns),
        {part: [column.get(part) for column in columns.values()] for part in parts},
        stacked=True,
    )


def _latency(figures: Figures) -> Any:
    shares = list(figures.calm)
    return _bars(
        "Decision → tool started, ms",
        shares,
        {
            "one run at a time": [figures.calm[share] for share in shares],
            "all at once": [figures.busy[share] for share in shares],
        },
    )


def _throughput(figures: Figures) -> Any:
    return _bars(
        "Approved runs per second",
        ["naive script", "Banksman"],
        {"runs per second": [figures.naive_runs_per_second, figures.runs_per_second]},
    )


def _parked(figures: Figures) -> Any:
    parts = [name for name in figures.parked[0] if name != "mail"]
    return _bars(
        "Memory while runs wait for people, MiB",
        [f"{count:,} parked" for count in figures.parked],
        {part: [held[part] for held in figures.parked.values()] for part in parts},
    )


def _killed(figures: Figures) -> Any:
    return _bars(
        f"{figures.plan.runs} runs, workers killed in the middle of a tool",
        list(_COLUMNS.values()),
        {
            f"{name}, {crash.kills} kills": [getattr(crash, column) for column in _COLUMNS]
            for name, crash in figures.killed.items()
        },
    )


def _bars(
    title: str, labels: Sequence[str], rows: Mapping[str, Sequence[float | None]], *, stacked: bool = False
) -> Any:
    kind: Any = pygal.StackedBar if stacked else pygal.Bar
    chart = kind(
        title=title,
        style=_STYLE,
        js=(),
        no_prefix=True,
        show_y_guides=False,
        width=720,
        height=400,
        legend_at_bottom=True,
        print_values=True,
        disable_xml_declaration=False,
        formatter=_part if stacked else _number,
    )
    chart.x_labels = labels
    for name, values in rows.items():
        chart.add(name, values)
    return chart


def _number(value: float | None) -> str:
    return f"{value or 0:,.4g}"


def _part(value: float | None) -> str:
    """Of a stack, in which what is not there has no height."""
    return _number(value) if value else ""
