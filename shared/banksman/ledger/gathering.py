"""Gathering: what waits for a person, when they were told last, and many notices that are told in one message.

Every move of many rows carries their fences, as a move of one does: a notice that a later claim took over is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from banksman.ids import BatchId, NoticeId, PersonId
from banksman.ledger import Connection, notices
from banksman.records import Line, Notice, Waiting
from banksman.states import Kind, Tier


def waiting(conn: Connection, notice_ids: Collection[NoticeId]) -> Mapping[NoticeId, Waiting]:
    """What decides whether claimed notices go now, each by itself, or wait for a summary."""
    rows = conn.execute(
        """
        SELECT notices.id, requests.tier, notices.held IS NOT NULL,
               notices.attempts > 1 OR notices.last_error IS NOT NULL,
               (SELECT count(DISTINCT told.sent_at)
                FROM requests AS asked
                JOIN notices AS told ON told.request_id = asked.id
                WHERE asked.run_id = requests.run_id AND asked.state = 'open'
                  AND told.person_id = notices.person_id AND told.sent_at > clock_timestamp() - interval '1 day'),
               (SELECT first.id
                FROM notices AS first
                WHERE first.request_id = requests.id AND first.person_id = notices.person_id
                ORDER BY first.id
                LIMIT 1)
        FROM notices
        LEFT JOIN requests ON requests.id = notices.request_id
        WHERE notices.id = ANY(%s)
        """,
        (list(notice_ids),),
    ).fetchall()
    return {
        NoticeId(notice): Waiting(None if tier is None else Tier(tier), held, tried, told, first and NoticeId(first))
        for notice, tier, held, tried, told, first in rows
    }


def look(conn: Connection, person_ids: Collection[PersonId]) -> Mapping[PersonId, tuple[datetime, timedelta | None]]:
    """The time, and how long ago each of them was told something. Holds their inboxes until the transaction ends, so
    that of two notifiers one opens the window and the other finds it open.
    """
    rows = conn.execute(
        """
        INSERT INTO inboxes (person_id)
        SELECT person FROM unnest(%s::uuid[]) AS person
        ON CONFLICT (person_id) DO UPDATE SET told_at = inboxes.told_at
        RETURNING person_id, clock_timestamp(), clock_timestamp() - told_at
        """,
        (sorted(person_ids),),
    ).fetchall()
    return {PersonId(person): (now, ago) for person, now, ago in rows}


def tell(conn: Connection, person_id: PersonId) -> None:
    """A window begins: what comes for this person from now on waits for its end."""
    conn.execute("UPDATE inboxes SET told_at = clock_timestamp() WHERE person_id = %s", (person_id,))


def take(conn: Connection, person_id: PersonId, *, lease: timedelta, limit: int) -> Sequence[tuple[Notice, int]]:
    """Whatever else waits for this person, held, due, or claimed by one who died → claimed, to be told in the same
    message; never tier high.
    """
    rows = conn.execute(
        f"""
        WITH waiting AS (
            SELECT id FROM notices WHERE person_id = %(person)s AND state = 'due' AND held IS NOT NULL
            UNION
            SELECT id FROM notices
            WHERE person_id = %(person)s AND state IN ('due', 'claimed') AND due_at <= statement_timestamp()
        ), picked AS (
            SELECT notices.id
            FROM notices
            JOIN requests ON requests.id = notices.request_id AND requests.tier <> 'high'
            WHERE notices.id IN (SELECT id FROM waiting)
              -- Said again of the row that was locked: it may have moved meanwhile.
              AND (notices.state = 'due' AND notices.held IS NOT NULL
                   OR notices.state IN ('due', 'claimed') AND notices.due_at <= statement_timestamp())
            ORDER BY notices.id
            LIMIT %(limit)s
            FOR UPDATE OF notices SKIP LOCKED
        )
        UPDATE notices
        SET state = 'claimed', due_at = clock_timestamp() + %(lease)s, fence = fence + 1, attempts = attempts + 1
        FROM picked
        WHERE notices.id = picked.id
        RETURNING {notices.COLUMNS}, notices.fence
        """,
        {"person": person_id, "lease": lease, "limit": limit},
    ).fetchall()
    return [(notices.of_row(row[:-1]), row[-1]) for row in rows]


def held_for(conn: Connection, person_ids: Collection[PersonId]) -> set[PersonId]:
    """Those of them for whom something is held already."""
    rows = conn.execute(
        "SELECT DISTINCT person_id FROM notices WHERE person_id = ANY(%s) AND state = 'due' AND held IS NOT NULL",
        (list(person_ids),),
    ).fetchall()
    return {PersonId(row[0]) for row in rows}


def hold(conn: Connection, held: Sequence[tuple[NoticeId, int, timedelta, str]]) -> None:
    """Claimed → due after a while, with the reason; this was no attempt."""
    conn.execute(
        """
        UPDATE notices
        SET state = 'due', due_at = clock_timestamp() + delay, held = reason, attempts = attempts - 1
        FROM unnest(%s::uuid[], %s::integer[], %s::interval[], %s::text[]) AS wanted (notice, its_fence, delay, reason)
        WHERE id = notice AND fence = its_fence AND state = 'claimed'
        """,
        [list(column) for column in zip(*held, strict=True)],
    )


def route(conn: Connection, notice_ids: Collection[NoticeId], channel: str) -> None:
    """By which ways these go out; nothing holds them any more."""
    conn.execute("UPDATE notices SET channel = %s, held = NULL WHERE id = ANY(%s)", (channel, list(notice_ids)))


def lines(conn: Connection, notice_ids: Collection[NoticeId]) -> Sequence[Line]:
    """What notices are about, requests that are alike in one line; the line with the first deadline first."""
    rows = conn.execute(
        """
        SELECT runs.batch_id, batches.name, requests.agent, requests.tool, requests.kind, requests.tier,
               notices.kind = 'remark', count(DISTINCT requests.id), min(requests.expires_at)
        FROM notices
        JOIN requests ON requests.id = notices.request_id
        JOIN runs ON runs.id = requests.run_id
        LEFT JOIN batches ON batches.id = runs.batch_id
        WHERE notices.id = ANY(%s)
        GROUP BY 1, 2, 3, 4, 5, 6, 7
        ORDER BY 9, 3, 4, 1
        """,
        (list(notice_ids),),
    ).fetchall()
    return [
        Line(batch and BatchId(batch), name, agent, tool, Kind(kind), Tier(tier), remark, count, expires_at)
        for batch, name, agent, tool, kind, tier, remark, count, expires_at in rows
    ]


def ours(conn: Connection, claimed: notices.Fenced) -> set[NoticeId]:
    """Those that are still held by this claim."""
    found = conn.execute(
        """
        SELECT id
        FROM notices
        JOIN unnest(%s::uuid[], %s::integer[]) AS claimed (notice, its_fence) ON id = notice AND fence = its_fence
        WHERE state = 'claimed'
        """,
        ([item[0] for item in claimed], [item[1] for item in claimed]),
    ).fetchall()
    return {NoticeId(row[0]) for row in found}
