"""Erasing: the content of one run goes at once, at somebody's wish; that it was, and what was done in it, stays told.

The run's row and its calls stay, without what was said; the audit log never held that. It is the keeper's work, as
removing rows is (`retention`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import LiteralString

from banksman import digest, ids, ledger, vault
from banksman.digest import Json
from banksman.errors import Conflict, NotFound
from banksman.ids import RunId
from banksman.ledger import Connection, audit, runs
from banksman.ledger.retention import ACTOR, ASKED, FAMILY, day, remove_of_requests, remove_of_runs
from banksman.records import Event
from banksman.states import FINAL, RunStatus


def erase(conn: Connection, run_id: RunId, *, because: str | None = None) -> Sequence[RunId]:
    """Over → over and without content: the run and all that it delegated, whose ids come back.

    Prompt, metadata, tags, the caller's key, output, error, conversation, files, results, what was asked and answered,
    reasons, remarks, messages, votes and decisions go. Ids, states, times, tools and usage stay, and the audit log.
    """
    family = _held_family(conn, run_id)
    wanted = {"runs": family}
    _must_be_without_grants(conn, wanted)
    _forget_answers(conn, family)
    # Others' calls may name a grant that is over: its row stays then.
    conn.execute(f"DELETE FROM grants WHERE request_id IN {ASKED} AND NOT EXISTS ({_USED})", wanted)
    for (grant,) in conn.execute(f"SELECT id FROM grants WHERE request_id IN {ASKED}", wanted).fetchall():
        empty = vault.seal(b"{}", ("grants.statement", grant))
        conn.execute("UPDATE grants SET statement = %s WHERE id = %s", (empty, grant))
    remove_of_requests(conn, wanted, "lookings", "remarks", "notices", "renewals", "decisions", "votes", "revisions")
    remove_of_runs(conn, wanted, "snapshots", "blobs")
    for (request,) in conn.execute(ASKED, wanted).fetchall():
        empty = vault.seal(b"{}", ("requests.context", request))
        conn.execute("UPDATE requests SET context = %s WHERE id = %s", (empty, request))
    conn.execute("UPDATE executions SET result = NULL WHERE run_id = ANY(%(runs)s) AND result IS NOT NULL", wanted)
    conn.execute("UPDATE deliveries SET last_error = NULL WHERE run_id = ANY(%(runs)s)", wanted)
    said = f"The content of this run was erased on {day(ledger.now(conn))}."
    for member in family:
        conn.execute(
            """
            UPDATE runs
            SET prompt = %s, metadata = %s, output = NULL, error = %s, tags = '{}', key = NULL,
                erased_at = clock_timestamp()
            WHERE id = %s
            """,
            (
                vault.seal(b"", ("runs.prompt", member)),
                vault.seal(digest.canonical({}), ("runs.metadata", member)),
                runs.sealed_error(member, said),
                member,
            ),
        )
    body: dict[str, Json] = {} if because is None else {"because": because}
    audit.append(conn, *(Event(ACTOR, "run.erased", member, body=body) for member in family))
    return family


def _held_family(conn: Connection, run_id: RunId) -> list[RunId]:
    """A submitted run and all that it delegated, held; `Conflict` unless all of it is over."""
    row = conn.execute("SELECT parent_id, status FROM runs WHERE id = %s FOR UPDATE", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no run {ids.show('run', run_id)}.", run_id)
    if row[0] is not None:
        raise Conflict(
            "Another run delegated this one, and its conversation holds what came of it: erase that one.",
            {"parent": ids.show("run", row[0])},
        )
    below = conn.execute(f"{FAMILY} SELECT id FROM family ORDER BY id".encode(), {"tops": [run_id]}).fetchall()
    held = conn.execute(
        "SELECT id, status FROM runs WHERE id = ANY(%s) ORDER BY id FOR UPDATE", ([row[0] for row in below],)
    ).fetchall()
    for member, status in held:
        if RunStatus(status) not in FINAL:
            raise Conflict(
                "Only what is over is erased: cancel it first, or wait for its end.",
                {"run": ids.show("run", member), "status": status},
            )
    return [RunId(member) for member, _ in held]


_USED: LiteralString = "SELECT FROM executions WHERE grant_id = grants.id AND executions.run_id <> ALL(%(runs)s)"


def _must_be_without_grants(conn: Connection, wanted: Mapping[str, object]) -> None:
    row = conn.execute(
        f"""
        SELECT id, expires_at
        FROM grants
        WHERE request_id IN {ASKED} AND revoked_at IS NULL AND expires_at > clock_timestamp()
        LIMIT 1
        """,
        wanted,
    ).fetchone()
    if row is not None:
        raise Conflict(
            "A standing grant that was given on this run still lets calls through, and holds its arguments: revoke it"
            " first (`banksman grants revoke`), or wait until it is over.",
            {"grant": ids.show("gra", row[0]), "until": row[1].astimezone(UTC).isoformat(timespec="seconds")},
        )


def _forget_answers(conn: Connection, family: Sequence[RunId]) -> None:
    """Answers that are kept under an Idempotency-Key and name one of these runs, or what was asked or granted in it
    → gone. There is a day of them.
    """
    wanted = {"runs": family}
    asked = conn.execute(ASKED, wanted).fetchall()
    given = conn.execute(f"SELECT id FROM grants WHERE request_id IN {ASKED}", wanted).fetchall()
    names = [
        *(ids.show("run", member).encode() for member in family),
        *(ids.show("req", request).encode() for (request,) in asked),
        *(ids.show("gra", grant).encode() for (grant,) in given),
    ]
    naming: list[tuple[str, str]] = []
    with conn.cursor(name="answers") as rows:
        rows.itersize = 500
        rows.execute("SELECT actor, key, body FROM answers WHERE length(body) > 0")
        for actor, key, body in rows:
            opened = vault.open_sealed(body, ("answers.body", actor, key))
            if any(name in opened for name in names):
                naming.append((actor, key))
    for place in naming:
        conn.execute("DELETE FROM answers WHERE actor = %s AND key = %s", place)
