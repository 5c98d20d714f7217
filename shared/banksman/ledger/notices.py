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


def sent(conn: Connection, notice_id: NoticeId, fence: int) -> bool:
    """Claimed → sent."""
    return _moved(
        conn,
        """
        UPDATE notices SET state = 'sent', due_at = NULL, sent_at = clock_timestamp(), last_error = NULL
        WHERE id = %s AND fence = %s AND state = 'claimed'
        """,
        (notice_id, fence),
    )


def postpone(
    conn: Connection, notice_id: NoticeId, fence: int, *, error: str, delay: timedelta, counted: bool = True
) -> bool:
    """Claimed → due again after `delay`, keeping what went wrong; uncounted when it was not really tried."""
    return _moved(
        conn,
        """
        UPDATE notices
        SET state = 'due', due_at = clock_timestamp() + %s, last_error = %s, attempts = attempts - %s
        WHERE id = %s AND fence = %s AND state = 'claimed'
        """,
        (delay, error[:500], 0 if counted else 1, notice_id, fence),
    )


def bury(conn: Connection, notice_id: NoticeId, fence: int, *, error: str) -> bool:
    """Claimed → dead: it was tried often enough, and stays visible."""
    return _moved(
        conn,
        """
        UPDATE notices SET state = 'dead', due_at = NULL, last_error = %s
        WHERE id = %s AND fence = %s AND state = 'claimed'
        """,
        (error[:500], notice_id, fence),
    )


def drop(conn: Connection, notice_id: NoticeId, fence: int) -> bool:
    """Claimed → dropped: nobody needs it any more."""
    return _moved(
        conn,
        """
        UPDATE notices SET state = 'dropped', due_at = NULL
        WHERE id = %s AND fence = %s AND state = 'claimed'
        """,
        (notice_id, fence),
    )


def seen(conn: Connection, notice_id: NoticeId) -> None:
    """The first opening of its link, remembered."""
    conn.execute("UPDATE notices SET seen_at = clock_timestamp() WHERE id = %s AND seen_at IS NULL", (notice_id,))


def try_code(conn: Connection, notice_id: NoticeId, *, tries: int) -> bool:
    """Count one attempt at the typed code; False when the tries are used up or the notice no longer counts.

    Commit this before comparing, or an answer would cost nothing.
    """
    return _moved(
        conn,
        f"""
        UPDATE notices SET code_tries = code_tries + 1
        WHERE id = %s AND code_tries < %s AND used_at IS NULL AND {lasting.NOTICE}
        """,
        (notice_id, tries),
    )


def use(conn: Connection, notice_id: NoticeId) -> bool:
    """The link or code decided or signed in, once; False when it was used or has run out."""
    return _moved(
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
    row = conn.execute(f"SELECT {COLUMNS} FROM notices WHERE id = %s", (notice_id,)).fetchone()
    if row is None:
        raise NotFound("There is no such notice.")
    return of_row(row)


def named(conn: Connection, notice_ids: Collection[NoticeId]) -> dict[NoticeId, Notice]:
    """Several notices by id; one that does not exist is left out."""
    rows = conn.execute(f"SELECT {COLUMNS} FROM notices WHERE id = ANY(%s)", (list(notice_ids),)).fetchall()
    return {NoticeId(row[0]): of_row(row) for row in rows}


def of_request(conn: Connection, request_id: RequestId) -> Sequence[Notice]:
    """Every notice about a request, oldest first."""
    rows = conn.execute(f"SELECT {COLUMNS} FROM notices WHERE request_id = %s ORDER BY id", (request_id,)).fetchall()
    return [of_row(row) for row in rows]


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


def _moved(conn: Connection, statement: LiteralString, values: Sequence[object]) -> bool:
    return conn.execute(statement, values).rowcount == 1
