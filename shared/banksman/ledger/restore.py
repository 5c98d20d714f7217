"""After a restore of PostgreSQL to an earlier moment: which runs may have acted since, and what else came back.

The outside world does not go back with the database. A run that was not over at the restored moment may have gone on,
and acted, in the future that was taken back; carried on as it stands, it would act again. So every such run becomes
stuck until a person has looked. This works as the database's owner, before any worker starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from banksman import vault
from banksman.ids import RunId, show
from banksman.ledger import Connection, audit
from banksman.records import Event

ACTOR = "restore-check"
_HEAD = "The database was restored to an earlier moment"
_LAST = "\nIts last error: "
_FENCES = 1_000_000
"""So far a fence is raised: a worker that outlived the restore holds the number of a claim that was taken back, and no
later claim may come to have the same."""
_STANDING = "revoked_at IS NULL AND used < most AND expires_at > clock_timestamp()"
_OPEN = "status NOT IN ('finished', 'failed', 'cancelled')"


@dataclass(frozen=True, slots=True)
class Findings:
    """What stands in a database right now, as far as a restore matters to it."""

    runs: Mapping[str, int]
    """Runs that are not over and not marked yet, by status."""
    marked: int
    """Runs that say already that they may have acted since a restore."""
    open_requests: int
    sessions: int
    grants: int
    """Standing grants: one may have been revoked, or used up, since."""
    policy: tuple[int, datetime] | None
    """The number of the version in force, and of when it is; an administrator may have uploaded another since."""
    notices: int
    """Messages that are due, some of which may have been sent before."""
    leases: int
    leased_until: datetime | None
    connected: Mapping[str, int]
    """Connections of the services, by database role."""


def look(conn: Connection) -> Findings:
    """What a restore brings back; changes nothing."""
    by_status: dict[str, int] = {}
    marked = 0
    # The text is sealed, so it is read here and not by the statement.
    with conn.cursor(name="open_runs") as rows:
        rows.itersize = 1000
        rows.execute(f"SELECT id, status, error FROM runs WHERE {_OPEN}")
        for run_id, status, error in rows:
            if status == "stuck" and _said(run_id, error).startswith(_HEAD):
                marked += 1
            else:
                by_status[status] = by_status.get(status, 0) + 1
    row = conn.execute(
        f"""
        SELECT (SELECT count(*) FROM requests WHERE state = 'open'),
               (SELECT count(*) FROM sessions WHERE ended_at IS NULL AND expires_at > clock_timestamp()),
               (SELECT count(*) FROM grants WHERE {_STANDING}),
               (SELECT count(*) FROM notices WHERE state IN ('due', 'claimed')),
               count(*), max(due_at)
        FROM runs
        WHERE status = 'running' AND due_at > clock_timestamp()
        """
    ).fetchone()
    assert row is not None
    policy = conn.execute("SELECT version, created_at FROM policies ORDER BY version DESC LIMIT 1").fetchone()
    roles = conn.execute(
        """
        SELECT usename, count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND usename LIKE 'banksman\\_%'
        GROUP BY usename
        ORDER BY usename
        """
    ).fetchall()
    asked, sessions, grants, notices, leases, until = row
    return Findings(by_status, marked, asked, sessions, grants, policy, notices, leases, until, dict(roles))


def end_sessions(conn: Connection) -> int:
    """Every session → ended: one that was ended since the restored moment would open the inbox again."""
    ended = conn.execute("UPDATE sessions SET ended_at = clock_timestamp() WHERE ended_at IS NULL").rowcount
    if ended:
        audit.append(conn, Event(ACTOR, "session.ended_everywhere", body={"sessions": ended}))
    return ended


def end_grants(conn: Connection) -> int:
    """Every standing grant → revoked, by nobody: one that was revoked or used up since the restored moment would let
    calls through again.
    """
    rows = conn.execute(f"UPDATE grants SET revoked_at = clock_timestamp() WHERE {_STANDING} RETURNING id").fetchall()
    audit.append(conn, *(Event(ACTOR, "grant.revoked", body={"grant": show("gra", row[0])}) for row in rows))
    return len(rows)


def doubt(conn: Connection, after: RunId | None, *, limit: int = 1000) -> tuple[RunId | None, int]:
    """Queued, running or waiting → stuck, and stuck with the reason before its last error: the next `limit` runs after
    `after`. Where to go on (None: that was all), and how many were marked. Open requests stay open.
    """
    rows = conn.execute(
        f"""
        SELECT id, status, error, clock_timestamp()
        FROM runs
        WHERE {_OPEN} AND (%(after)s::uuid IS NULL OR id > %(after)s)
        ORDER BY id
        LIMIT %(limit)s
        FOR UPDATE
        """,
        {"after": after, "limit": limit},
    ).fetchall()
    errors: dict[RunId, bytes] = {}
    for run_id, status, error, now in rows:
        last = _said(run_id, error)
        # A run that was retried after an earlier restore says so still, and may have acted since.
        doubted_before = last.startswith(_HEAD)
        if not (status == "stuck" and doubted_before):
            last = last.partition(_LAST)[2] if doubted_before else last
            text = (
                f"{_HEAD} (found on {now.astimezone(UTC):%Y-%m-%d at %H:%M} UTC); this run may have acted since. Check"
                " what it did, then retry or fail it."
            )
            text += f"{_LAST}{last}" if last else ""
            errors[run_id] = vault.seal(text.encode("utf-8", "replace"), ("runs.error", run_id))
    conn.execute(
        """
        UPDATE runs
        SET status = 'stuck', fence = fence + %s, owner = NULL, dispatched = false, due_at = NULL, error = doubted.error
        FROM unnest(%s::uuid[], %s::bytea[]) AS doubted (id, error)
        WHERE runs.id = doubted.id
        """,
        (_FENCES, list(errors), list(errors.values())),
    )
    audit.append(conn, *(Event(ACTOR, "run.doubted", run_id) for run_id in errors))
    return (RunId(rows[-1][0]) if len(rows) == limit else None), len(errors)


def _said(run_id: RunId, error: bytes | None) -> str:
    return "" if error is None else vault.open_sealed(error, ("runs.error", run_id)).decode()
