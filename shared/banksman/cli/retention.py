"""`banksman purge` and `banksman erase`: what is over is removed after a while, or loses its content at once."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from banksman import durations, ids
from banksman.cli import given, place, show
from banksman.errors import InvalidInput

_NAME = "banksman-keeper"


def purge(
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Runs that ended longer ago, such as 90d.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=5000, help="How many runs each transaction removes.")
    ] = 100,
    as_json: given.Json = False,
) -> None:
    """Remove runs that ended so long ago, with everything that is kept of them but the audit log.

    Run it as the database's owner (BANKSMAN_DATABASE_URL, as for migrate) or as banksman_keeper, while the system runs.
    It removes some at a time, can be stopped at any moment and goes on where it was. A run goes with all that it
    delegated, once all of that ended so long ago, and nothing that stays uses a standing grant that it gave.
    """
    from banksman import ledger
    from banksman.ledger import retention

    age = durations.read(older_than)
    if age < retention.LEAST:
        raise InvalidInput("At least one day is kept: an answer under an Idempotency-Key may be asked for again.")
    url, gone = place.database_url(), {"runs": 0, "batches": 0, "messages": 0, "held_back": 0}
    with retention.keeping(url, name=_NAME) as conn:
        before = ledger.now(conn) - age
        counted = retention.counted(conn, before)
    total = sum(counted.values())
    if not dry_run:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("removing", total=total)
            after: retention.Place | None = retention.START
            while after is not None:
                with retention.keeping(url, name=_NAME) as conn:
                    part = retention.step(conn, after, before, limit=at_once)
                gone["runs"] += part.runs
                gone["batches"] += part.batches
                gone["held_back"] += part.held_back
                after = part.after
                progress.advance(task, part.looked_at)
            more = at_once
            while more == at_once:
                with retention.keeping(url, name=_NAME) as conn:
                    more = retention.remove_messages(conn, before, limit=at_once)
                gone["messages"] += more
    if as_json:
        counts = {status.value: count for status, count in counted.items()}
        show.as_json({"before": before.astimezone(UTC).isoformat(), "submitted_runs": counts, **gone})
        return
    day = f"{before.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    ends = ", ".join(f"{count:,} {status.value}" for status, count in sorted(counted.items())) or "none"
    typer.echo(f"Submitted runs that ended before {day}: {ends}.")
    if dry_run:
        typer.echo("Nothing was changed. Without --dry-run they are removed, with all that they delegated.")
        return
    typer.echo(f"Removed: {gone['runs']:,} runs, {gone['batches']:,} batches, {gone['messages']:,} messages.")
    if gone["held_back"]:
        typer.echo(
            f"{gone['held_back']:,} submitted runs stay for now: somebody holds them, or something newer hangs on them."
        )


def erase(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run that is over.", show_default=False)],
    *,
    because: Annotated[
        str | None, typer.Option("--because", metavar="TEXT", help="Why; kept in the audit log for good.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: given.Json = False,
) -> None:
    """Remove the content of one run that is over, and of all that it delegated: what was asked, said, done and decided.

    Run it as the database's owner (BANKSMAN_DATABASE_URL and BANKSMAN_VAULT_KEYS, as in secrets/migrate.env) or as
    banksman_keeper. Ids, states and times stay, and the audit log verifies. There is no way back. Exit codes: 1 you
    said no; 3 it is not over, another run delegated it, or a standing grant that it gave still lets calls through.
    """
    from banksman import vault
    from banksman.ids import RunId
    from banksman.ledger import erasure, retention, runs

    wanted = RunId(ids.read("run", run_id))
    vault.use(place.vault_keys())
    url = place.database_url()
    with retention.keeping(url, name=_NAME) as conn:
        status = runs.lock(conn, wanted)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput("There is no terminal to confirm at: add --yes.")
        if not typer.confirm(f"Erase the content of {run_id} ({status.value}) for good?", err=True):
            raise typer.Exit(1)
    with retention.keeping(url, name=_NAME) as conn:
        family = erasure.erase(conn, wanted, because=because)
    shown = [ids.show("run", member) for member in family]
    if as_json:
        show.as_json({"erased": shown})
    else:
        below = f" and {len(family) - 1} that it delegated" if len(family) > 1 else ""
        typer.echo(f"The content of {run_id}{below} is gone. Backups and mails that were sent have theirs still.")
