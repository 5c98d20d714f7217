"""Commands about the audit log: verify, prove, export, heads.

All of them read the database itself, so that nobody need trust a gateway to check what a gateway wrote. `verify
--proof` needs no database at all, only the sealer's public key.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show
from banksman.errors import BanksmanError, ConfigurationError, NotGenuine

if TYPE_CHECKING:
    from banksman.ledger import Connection
    from banksman.sealing.report import Kept, Report
    from banksman.signing import Verifier

_NAME = "banksman-audit"
_AT_ONCE = 10_000

audit = typer.Typer(
    help="The audit log: check its seal, prove what it says, take it along. Works on the database of "
    "BANKSMAN_DATABASE_URL (its owner's or the sealer's), else of the nearest stack.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Key = Annotated[
    str,
    typer.Option(
        help="What the sealer's key verifies by, kid:current:public-key. Else of BANKSMAN_SEAL_VERIFY_KEYS, or of the"
        " nearest stack.",
        metavar="KEYS",
        show_default=False,
    ),
]


@audit.command()
def verify(
    *,
    anchor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Heads that were anchored: a file, or a syslog.", show_default=False),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Heads that you kept, of `banksman audit heads`.", show_default=False),
    ] = None,
    receipt: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A receipt: a saved mail or its text, a saved page, the answer to a vote. Give it again for more.",
            show_default=False,
        ),
    ] = None,
    exported: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Check what `banksman audit export` wrote instead, without any database.",
            show_default=False,
        ),
    ] = None,
    proof: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check this proof instead, without any database.", show_default=False),
    ] = None,
    keys: Key = "",
    as_json: given.Json = False,
) -> None:
    """Check that the log says what was sealed. Exit codes: 0 it does; 1 it was tampered with (and where); 2 unknown.

    Without heads kept elsewhere (--anchor, --heads, --receipt) a log that was rolled back looks whole.
    """
    try:
        verifier = _verifier(keys)
        if proof is not None:
            _verify_proof(proof, verifier, as_json=as_json)
            return
        signed = [path for path in (anchor, heads) if path is not None]
        report = _checked(verifier, signed, receipt or (), exported, quiet=as_json)
    except BanksmanError as error:
        show.complain(f"banksman: cannot check: {error}")
        raise typer.Exit(2) from None
    if as_json:
        show.as_json(_facts(report))
    else:
        _tell(report)
    if report.findings:
        raise typer.Exit(1)
    if report.newest is None:
        show.complain("banksman: cannot check: nothing has been sealed yet.")
        raise typer.Exit(2)


@audit.command()
def prove(request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, req_….")]) -> None:
    """Print a proof of what the log says of a request; `banksman audit verify --proof FILE` checks it anywhere."""
    from banksman import ids
    from banksman.ids import RequestId
    from banksman.sealing import proof

    wanted = RequestId(ids.read("req", request))
    with _ledger() as conn:
        made = proof.prove(conn, wanted)
    typer.echo(json.dumps(made, indent=2))
    if made["unsealed"]:
        show.complain(f"{made['unsealed']} of its events are not sealed yet: ask again in a minute.")


@audit.command()
def export() -> None:
    """Print the whole log: each event as the exact text that its leaf was hashed from, and the signed heads.

    `banksman audit verify --export FILE` checks it anywhere; docs/audit.md says how a program of your own can.
    """
    from banksman.sealing import exported

    with _ledger() as conn:
        for line in exported.lines(conn):
            sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


@audit.command()
def heads(
    *, after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Only heads after this one.")] = 0
) -> None:
    """Print every signed head, one on each line. Keep them where the database's owner cannot reach them."""
    from banksman.ledger import seals
    from banksman.sealing import heads as signed_heads

    while True:
        with _ledger() as conn:
            found = seals.heads(conn, after=after, limit=_AT_ONCE)
        if not found:
            return
        for signed in found:
            after = signed_heads.after(signed, after).number
            typer.echo(json.dumps(signed_heads.to_json(signed)))


def _checked(
    verifier: Verifier, signed: Sequence[Path], receipts: Sequence[Path], export: Path | None, *, quiet: bool
) -> Report:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from banksman.sealing import anchors, check, exported
    from banksman.sealing import receipts as named

    def kept() -> Iterator[Kept]:
        for path in signed:
            yield from anchors.read(path)
        for path in receipts:
            yield from named.read(path)

    columns = (TextColumn("{task.completed} events checked"),)
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=None)

        def tell(done: int) -> None:
            progress.update(task, completed=done)

        if export is None:
            with _ledger() as conn:
                return check.check(conn, verifier, anchored=kept(), tell=tell)
        with _opened(export) as file:
            return exported.check(file, verifier, anchored=kept(), tell=tell)


@contextmanager
def _opened(path: Path) -> Generator[Iterable[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None


def _verify_proof(path: Path, verifier: Verifier, *, as_json: bool) -> None:
    from banksman.sealing import proof

    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no proof: {error}") from None
    try:
        shown = proof.check(value, verifier)
    except NotGenuine as error:
        show.complain(f"banksman: {error}")
        raise typer.Exit(1) from None
    if as_json:
        counts = {"events": shown.events, "unsealed": shown.unsealed}
        show.as_json({"request_id": shown.request, "head": shown.head.short(), **counts})
        return
    typer.echo(
        show.prose(
            f"{shown.events} events of {shown.request} are in the log under head {shown.head.number}"
            f" ({shown.head.size} events, {shown.head.at}, root {shown.head.root.hex()}). That it has no others is not"
            " shown."
        )
    )


def _verifier(keys: str) -> Verifier:
    from banksman.signing import Signer, Verifier

    text = keys or os.environ.get("BANKSMAN_SEAL_VERIFY_KEYS", "")
    path = place.stack_file()
    if not text and path is not None:
        try:
            kept = json.loads((path.parent / "secrets.json").read_text())
            text = kept.get("seal_verify_keys") or Signer.read(kept["sealing_key"], setting="sealing_key").public()
        except (OSError, ValueError, KeyError):
            raise ConfigurationError(f"{path.parent / 'secrets.json'} has no sealing key.") from None
    if not text:
        raise ConfigurationError("Say by which key: --keys, or BANKSMAN_SEAL_VERIFY_KEYS of secrets/migrate.env.")
    return Verifier.read(text, setting="BANKSMAN_SEAL_VERIFY_KEYS")


def _tell(report: Report) -> None:
    for finding in report.findings:
        typer.echo(show.prose(finding))
    newest = report.newest
    if newest is not None:
        typer.echo(
            f"{report.events} events under {report.heads} heads, the newest of {newest.at}"
            f" with root {newest.root.hex()}; {report.waiting} wait for the seal."
        )
    if report.moves:
        typer.echo(f"The log came from another PostgreSQL {report.moves} times: see that you know when.")
    if not report.anchored:
        typer.echo("Checked against no anchor: that the log was not rolled back is not shown.")
    if report.findings:
        typer.echo("The log was tampered with.")
    elif newest is not None:
        typer.echo("The log says what was sealed.")


def _facts(report: Report) -> dict[str, object]:
    return {
        "good": not report.findings and report.newest is not None,
        "findings": report.findings,
        "events": report.events,
        "heads": report.heads,
        "anchored": report.anchored,
        "moves": report.moves,
        "waiting": report.waiting,
        "head": None if report.newest is None else report.newest.short(),
    }


@contextmanager
def _ledger() -> Generator[Connection]:
    """The whole log at one moment, while sealing goes on beside."""
    from banksman import ledger

    with ledger.once(place.database_url(), name=_NAME) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield conn
