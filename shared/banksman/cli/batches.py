"""Commands about batches: batch submit, batch show, batch cancel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show
from banksman.errors import InvalidInput

if TYPE_CHECKING:
    from banksman.shapes import Batch

batch = typer.Typer(help="Submit many runs as one, look at them, stop them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, bat_….")]


@batch.command()
def submit(
    file: Annotated[str, typer.Argument(help="One run as JSON on each line; - reads standard input.")],
    *,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    idempotency_key: Annotated[
        str, typer.Option(help="Under the same key a batch is submitted once.", show_default=False)
    ] = "",
    quiet: given.Quiet = False,
    as_json: given.Json = False,
) -> None:
    """Submit a file of runs, each with at least "agent" and "prompt". All are accepted, or none."""
    try:
        lines = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
    with place.find().submitter() as banksman:
        made = banksman.submit_batch(lines, name=name or None, idempotency_key=idempotency_key or None)
    if quiet or not (as_json or sys.stdout.isatty()):
        typer.echo(made.id)
    else:
        _show(made, as_json=as_json)


@batch.command("show")
def show_batch(which: Id, *, as_json: given.Json = False) -> None:
    """Say how many runs of a batch are in which state."""
    with place.find().person() as banksman:
        _show(banksman.batch(which), as_json=as_json)


@batch.command()
def cancel(which: Id, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Stop a batch: nothing of it starts from now on, and what it waits for is cancelled."""
    with place.find().person(as_email) as banksman:
        _show(banksman.cancel_batch(which), as_json=as_json)


def _show(found: Batch, *, as_json: bool) -> None:
    if as_json:
        show.as_json(found)
        return
    facts = [
        ("batch", found.id),
        ("name", found.name or ""),
        ("requester", found.requester),
        ("created", show.moment(found.created_at)),
        ("cancelled", show.moment(found.cancelled_at)),
        ("finished", show.moment(found.finished_at)),
        ("runs", f"{found.total:,}"),
        *((f"  {status}", f"{count:,}") for status, count in found.runs.items() if count),
    ]
    for label, value in facts:
        if value:
            typer.echo(f"{label:<12} {show.prose(value)}")
