"""Notices: messages to reviewers, each delivered at least once, a repeat being the same message."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, LiteralString

from banksman.errors import NotFound
from banksman.ids import NoticeId, PersonId, RequestId, RunId
from banksman.ledger import Connection, lasting
from banksman.records import Matter, Notice, Requirement
from banksman.states import Kind, NoticeState

Fenced = Sequence[tuple[NoticeId, int]]
"""Claimed notices, each with its fence."""


def claim(
    conn: Connection, *, only: Sequence[NoticeId] | None = None, lease: timedelta, limit: int = 50
) -> Sequence[tuple[Notice, int]]:
    """Due, or claimed by one who died → claimed, with the fence that its later moves must carry."""
    rows = conn.execute(
        f"""
        WITH picked AS (
            SELECT id
            FROM notices
            WHERE state IN ('due', 'claimed') AND due_at <= statement_timestamp()
              AND (%(only)s::uuid[] IS NULL OR id = ANY(%(only)s))
            ORDER BY due_at
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        )
        UPDATE notices
        SET state = 'claimed', due_at = clock_timestamp() + %(lease)s, fence = fence + 1, attempts = attempts + 1
        FROM picked
        WHERE notices.id = picked.id
        RETURNING {COLUMNS}, notices.fence
        """,
        {"only": None if only is None else list(only), "lease": lease, "limit": limit},
    ).fetchall()
    return [(of_row(row[:-1]), row[-1]) for row in rows]


def matters(conn: Connection, notice_ids: Collection[NoticeId]) -> dict[NoticeId, Matter]:
    """What notices are about, and whether anybody still needs them: a settled or changed request needs nobody told."""
    rows = conn.execute(
        f"""
        SELECT notices.id, people.email,
               people.disabled_at IS NULL AND notices.used_at IS NULL AND {lasting.NOTICE}
               AND (requests.id IS NULL
                    OR requests.state = 'open' AND (requests.revision = notices.revision OR notices.kind = 'remark')),
               notices.created_at, notices.expires_at,
               requests.id, requests.run_id, requests.kind, requests.agent, requests.tool, requests.requirement,
               runs.requester
        FROM notices
        JOIN people ON people.id = notices.person_id
        LEFT JOIN requests ON requests.id = notices.request_id
        LEFT JOIN runs ON runs.id = requests.run_id
        WHERE notices.id = ANY(%s)
        """,
        (list(notice_ids),),
    ).fetchall()
    return {NoticeId(row[0]): _matter(row) for row in rows}


def sent(conn: Connection, claimed: Fenced) -> set[NoticeId]:
    """Claimed → sent, all at the same moment; those that were still held by this claim."""
    return _moved(
        conn,
        """
        UPDATE notices
        SET state = 'sent', due_at = NULL, sent_at = statement_timestamp(), last_error = NULL, held = NULL
        """,
        claimed,
    )


def postpone(conn: Connection, claimed: Fenced, *, error: str, delay: timedelta, counted: bool) -> set[NoticeId]:
    """Claimed → due again after `delay`, keeping what went wrong; uncounted when it was not really tried."""
    return _moved(
        conn,
        """
        UPDATE notices
        SET state = 'due', due_at = clock_timestamp() + %s, last_error = %s, attempts = attempts - %s, held = NULL
        """,
        claimed,
        (delay, error[:500], 0 if counted else 1),
    )


def bury(conn: Connection, claimed: Fenced, *, error: str) -> set[NoticeId]:
    """Claimed → dead: they were tried often enough, and stay visible."""
    move: LiteralString = "UPDATE notices SET state = 'dead', due_at = NULL, last_error = %s, held = NULL"
    return _moved(conn, move, claimed, (error[:500],))


def drop(conn: Connection, claimed: Fenced) -> set[NoticeId]:
    """Claimed → dropped: nobody needs them any more, or another message tells the same."""
    return _moved(conn, "UPDATE notices SET state = 'dropped', due_at = NULL, held = NULL", claimed)


def seen(conn: Connection, notice_id: NoticeId) -> None:
    """The first opening of its link, remembered."""
    conn.execute("UPDATE notices SET seen_at = clock_timestamp() WHERE id = %s AND seen_at IS NULL", (notice_id,))


def try_code(conn: Connection, notice_id: NoticeId, *, tries: int) -> bool:
    """Count one attempt at the typed code; False when the tries are used up or the notice no longer counts.

    Commit this before comparing, or an answer would cost nothing.
    """
    return _one(
        conn,
        f"""
        UPDATE notices SET code_tries = code_tries + 1
        WHERE id = %s AND code_tries < %s AND used_at IS NULL AND {lasting.NOTICE}
        """,
        (notice_id, tries),
    )


def use(conn: Connection, notice_id: NoticeId) -> bool:
    """The link or code decided or signed in, once; False when it was used or has run out."""
    return _one(
        conn,
        f"""
        UPDATE notices SET used_at = clock_timestamp()
        WHERE id = %s AND used_at IS NULL AND {lasting.NOTICE}
        """,
        (notice_id,),
    )


COLUMNS = f"""notices.id, notices.kind, notices.person_id, notices.request_id, notices.revision, notices.channel,
       notices.state, notices.attempts, notices.code_tries, notices.used_at, notices.expires_at,
       {lasting.NOTICE} AND notices.used_at IS NULL"""


def get(conn: Connection, notice_id: NoticeId) -> Notice:
    """The notice as it stands, or `NotFound`."""
    found = named(conn, [notice_id])
    if notice_id not in found:
        raise NotFound("There is no such notice.")
    return found[notice_id]


def named(conn: Connection, notice_ids: Collection[NoticeId]) -> dict[NoticeId, Notice]:
    """Several notices by id; one that does not exist is left out."""
    rows = conn.execute(f"SELECT {COLUMNS} FROM notices WHERE id = ANY(%s)", (list(notice_ids),)).fetchall()
    return {NoticeId(row[0]): of_row(row) for row in rows}


def of_row(row: Sequence[Any]) -> Notice:
    """The notice behind a row of `COLUMNS`."""
    (notice_id, kind, person, request, revision, channel, state, attempts, tries, used_at, expires_at, live) = row
    return Notice(
        id=NoticeId(notice_id),
        kind=kind,
        person_id=PersonId(person),
        request_id=None if request is None else RequestId(request),
        revision=revision,
        channel=channel,
        state=NoticeState(state),
        attempts=attempts,
        code_tries=tries,
        used_at=used_at,
        expires_at=expires_at,
        live=live,
    )


def _matter(row: Sequence[Any]) -> Matter:
    (notice_id, email, wanted, created_at, expires_at, request, run, kind, agent, tool, requirement, requester) = row
    matter = Matter(NoticeId(notice_id), email, wanted, created_at, expires_at)
    if request is None:
        return matter
    return replace(
        matter,
        request_id=RequestId(request),
        run_id=RunId(run),
        kind=Kind(kind),
        agent=agent,
        tool=tool,
        requirement=Requirement.from_json(requirement),
        requester=requester,
    )


def _moved(conn: Connection, move: LiteralString, claimed: Fenced, values: Sequence[Any] = ()) -> set[NoticeId]:
    """The claimed notices that this statement moved, each under the fence of its claim."""
    if not claimed:
        return set()
    fenced: LiteralString = f"""
        {move}
        FROM unnest(%s::uuid[], %s::integer[]) AS claimed (notice, its_fence)
        WHERE id = notice AND fence = its_fence AND state = 'claimed'
        RETURNING id
        """
    rows = conn.execute(fenced, [*values, [item[0] for item in claimed], [item[1] for item in claimed]]).fetchall()
    return {NoticeId(row[0]) for row in rows}


def _one(conn: Connection, statement: LiteralString, values: Sequence[object]) -> bool:
    return conn.execute(statement, values).rowcount == 1
