"""A batch on its way, as a bar in the terminal: how many runs are over, what others wait for, how fast, how long."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from banksman.errors import Unavailable

if TYPE_CHECKING:
    from banksman.client import Client
    from banksman.shapes import Batch

_PAUSE = 1.0
_OVER = ("finished", "failed", "cancelled")


def follow(banksman: Client, batch: Batch) -> Batch:
    """The batch once it is over, or once nothing of it goes on by itself; a bar says how far it is meanwhile."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=batch.total)
        while True:
            bar.update(task, completed=_over(batch), description=says(batch, datetime.now(UTC)))
            if batch.finished_at is not None or _over(batch) + batch.runs.get("stuck", 0) == batch.total:
                return batch
            time.sleep(_PAUSE)
            try:
                batch = banksman.batch(batch.id)
            except Unavailable:
                continue


def says(batch: Batch, now: datetime) -> str:
    """What stands beside the bar."""
    told = [f"{count:,} {status}" for status, count in batch.runs.items() if count and status != "queued"]
    if batch.open_requests:
        told.append(f"{batch.open_requests:,} to decide")
    if batch.paused_at is not None:
        told.append("paused")
    elif batch.waits_for:
        told.append(f"waiting for reviewers ({', '.join(batch.waits_for)})")
    if batch.per_minute:
        told.append(f"{batch.per_minute:,.1f} a minute")
    if batch.expected_at is not None:
        minutes = max(0, round((batch.expected_at - now).total_seconds() / 60))
        told.append(
            f"about {minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"about {minutes} min left"
        )
    return ", ".join(told)


def _over(batch: Batch) -> int:
    return sum(batch.runs.get(status, 0) for status in _OVER)
