"""`banksman restore-check`: after PostgreSQL was restored to an earlier moment, before workers start."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show
from banksman.errors import Conflict

if TYPE_CHECKING:
    from banksman.ledger.restore import Findings

_NAME = "banksman-restore-check"
_ALSO = """Also back from before the restore, and yours to look at:
- people who were disabled since, and roles that were taken away since: banksman reviewers list
- keys and tokens that were revoked since (those made since are gone): banksman keys list
- mails that were sent since are sent again, and mailed codes that were used since count again
- votes cast since are gone: their requests are open again
- an Idempotency-Key used since is unknown: a client that repeats itself submits once more"""


def restore_check(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is changed.")] = False,
    as_json: given.Json = False,
) -> None:
    """Mark every run that may have acted since the moment that the database was restored to, end all sessions, and
    revoke all standing grants.

    Run it as the database's owner (BANKSMAN_DATABASE_URL, as for migrate) before workers start. Such runs become stuck
    until a person retries or fails them. Exit codes: 0 done, or nothing to do; 1 there is something to do (--yes does
    it); 3 a worker is connected or holds a lease.
    """
    from banksman import ledger, vault
    from banksman.ledger import restore

    vault.use(place.vault_keys())
    url = place.database_url()
    with ledger.once(url, name=_NAME) as conn:
        found = restore.look(conn)
    _must_be_quiet(found)
    marked = ended = revoked = 0
    if yes:
        with ledger.once(url, name=_NAME) as conn:
            ended, revoked = restore.end_sessions(conn), restore.end_grants(conn)
        after, more = None, True
        while more:
            with ledger.once(url, name=_NAME) as conn:
                after, part = restore.doubt(conn, after)
            marked, more = marked + part, after is not None
    todo = sum(found.runs.values()) + found.sessions + found.grants
    if as_json:
        counts = {"marked": marked, "sessions_ended": ended, "grants_revoked": revoked, "marked_before": found.marked}
        show.as_json(
            {
                **counts,
                "runs": dict(found.runs),
                "sessions": found.sessions,
                "standing_grants": found.grants,
                "policy_version": found.policy and found.policy[0],
                "open_requests": found.open_requests,
                "messages_due": found.notices,
                "connected": dict(found.connected),
            }
        )
    else:
        _tell(found, marked=marked, ended=ended, revoked=revoked, yes=yes)
    raise typer.Exit(1 if todo and not yes else 0)


def _must_be_quiet(found: Findings) -> None:
    workers = found.connected.get("banksman_worker", 0)
    if workers:
        raise Conflict(
            "Workers are connected to this database. Stop them first: what they do now, this check cannot take back.",
            {"connections": workers},
        )
    if found.leased_until is not None:
        until = f"{found.leased_until.astimezone(UTC):%H:%M:%S} UTC"
        raise Conflict(
            f"{found.leases} runs are held by workers until {until}. If no worker runs, wait until then and look again;"
            " otherwise stop the workers first.",
            {"leases": found.leases},
        )


def _tell(found: Findings, *, marked: int, ended: int, revoked: int, yes: bool) -> None:
    runs = ", ".join(f"{count} {status}" for status, count in sorted(found.runs.items())) or "none"
    if yes:
        typer.echo(f"{marked} runs are stuck until a person retries or fails them (they were: {runs}).")
        typer.echo(f"{ended} sessions were ended: people sign in again.")
        typer.echo(f"{revoked} standing grants were revoked: people give those anew that are to stand.")
    else:
        typer.echo(f"Runs that may have acted since the restored moment: {runs}.")
        typer.echo(f"Sessions that would be ended: {found.sessions}.")
        typer.echo(f"Standing grants that would be revoked: {found.grants}.")
    if found.marked:
        typer.echo(f"{found.marked} runs had been marked before.")
    typer.echo(f"Requests that are open: {found.open_requests}. Deciding one does not move a stuck run.")
    typer.echo(f"Messages that are due: {found.notices}.")
    others = [role for role in found.connected if role != "banksman_worker"]
    if others:
        typer.echo(f"Connected right now: {', '.join(others)}. Stop them as well, if you can.")
    typer.echo(_ALSO)
    typer.echo(f"- a policy that was uploaded since is gone: {_policy(found)}")
    if not yes:
        typer.echo("Nothing was changed. To do it: banksman restore-check --yes")


def _policy(found: Findings) -> str:
    if found.policy is None:
        return "there is no version, so what workers are set to, or the defaults, are in force"
    number, created_at = found.policy
    return f"version {number}, of {created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, is in force"
