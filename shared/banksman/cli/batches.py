"""Commands about batches: submit one, watch it, pause and resume it, try again what failed, fetch its results."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from banksman.cli import given, place, show, watching
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
    skip_faulty: Annotated[bool, typer.Option(help="Accept the good lines, and name the others.")] = False,
    watch: Annotated[bool, typer.Option(help="Show how far it is until it is over.")] = False,
    quiet: given.Quiet = False,
    as_json: given.Json = False,
) -> None:
    """Submit a file of runs, each with at least "agent" and "prompt". All are accepted, or none.

    Exits with 1 if lines were skipped.
    """
    try:
        lines = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
    with place.find().submitter() as banksman:
        made = banksman.submit_batch(
            lines, name=name or None, skip_faulty=skip_faulty, idempotency_key=idempotency_key or None
        )
        for fault in made.errors:
            typer.echo(show.prose(f"skipped {fault['field']}: {fault['message']}"), err=True)
        if made.unlisted:
            typer.echo(f"skipped {made.unlisted:,} more lines", err=True)
        if watch:
            made = watching.follow(banksman, made)
    if quiet or not (as_json or sys.stdout.isatty()):
        typer.echo(made.id)
    else:
        _show(made, as_json=as_json)
    if made.skipped:
        raise typer.Exit(1)


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


@batch.command()
def pause(which: Id, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Let nothing of a batch start until it is resumed; what runs goes on to its next stop."""
    with place.find().person(as_email) as banksman:
        _show(banksman.pause_batch(which), as_json=as_json)


@batch.command()
def resume(which: Id, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Let a paused batch go on where it was."""
    with place.find().person(as_email) as banksman:
        _show(banksman.resume_batch(which), as_json=as_json)


@batch.command()
def retry(which: Id, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Try again what failed or is stuck. Nothing that finished is done again."""
    with place.find().person(as_email) as banksman:
        _show(banksman.retry_batch(which), as_json=as_json)


@batch.command()
def results(
    which: Id,
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, instead of one JSON document on each line.")] = False,
    ended: Annotated[bool, typer.Option("--ended", help="Only what is over, in the order of the ends.")] = False,
    after: Annotated[str, typer.Option(help="Go on after this cursor.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write them.")] = None,
) -> None:
    """Print what came of each run, with its line and key; also while the batch runs."""
    with place.find().person() as banksman, _written(output) if output else nullcontext(sys.stdout.buffer) as file:
        form: Literal["ndjson", "csv"] = "csv" if as_csv else "ndjson"
        for piece in banksman.results(which, form=form, order="end" if ended else "line", after=after or None):
            file.write(piece)
        file.flush()


@contextmanager
def _written(path: Path) -> Generator[BinaryIO]:
    """A draft beside the file, which takes its place once all of it is there; a pipe or a device as it is."""
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        whole = path.resolve()
        draft = whole.with_name(f".{whole.name}-{secrets.token_hex(4)}")
        try:
            with draft.open("xb") as file:
                yield file
            if whole.exists():
                shutil.copymode(whole, draft)
            draft.replace(whole)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}.") from None


def _show(found: Batch, *, as_json: bool) -> None:
    if as_json:
        show.as_json(found)
        return
    facts = [
        ("batch", found.id),
        ("name", found.name or ""),
        ("requester", found.requester),
        ("created", show.moment(found.created_at)),
        ("paused", show.moment(found.paused_at)),
        ("waits for", ", ".join(found.waits_for)),
        ("cancelled", show.moment(found.cancelled_at)),
        ("finished", show.moment(found.finished_at)),
        ("runs", f"{found.total:,}"),
        *((f"  {status}", f"{count:,}") for status, count in found.runs.items() if count),
        ("to decide", f"{found.open_requests:,} requests" if found.open_requests else ""),
        ("a minute", f"{found.per_minute:,.1f} runs" if found.per_minute else ""),
        ("expected", show.moment(found.expected_at)),
        ("used", _used(found.usage)),
        ("cost", f"{found.usage['cost']} USD, as the agent library reckons it" if found.usage.get("cost") else ""),
    ]
    for label, value in facts:
        if value:
            typer.echo(f"{label:<12} {show.prose(value)}")


def _used(usage: Mapping[str, Any]) -> str:
    return ", ".join(f"{usage[name]:,} {word}" for name, word in _USED if usage.get(name))


_USED = (
    ("requests", "model requests"),
    ("input_tokens", "tokens in"),
    ("output_tokens", "tokens out"),
    ("tool_calls", "tool calls"),
)
