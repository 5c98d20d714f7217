"""Lookings: who has a request open before them just now. A lease that is shown (`views.company`) and binds nobody."""

from __future__ import annotations

from datetime import timedelta

from banksman.ids import PersonId, RequestId
from banksman.ledger import Connection, lasting


def look(conn: Connection, request_id: RequestId, person_id: PersonId, *, lease: timedelta) -> bool:
    """A person looks from now on, or goes on looking; False where the request waits for nobody. Old leases go."""
    conn.execute(
        """
        DELETE FROM lookings
        USING (SELECT request_id, person_id
               FROM lookings
               WHERE until_at < statement_timestamp()
               LIMIT 100
               FOR UPDATE SKIP LOCKED) AS over
        WHERE lookings.request_id = over.request_id AND lookings.person_id = over.person_id
        """
    )
    return (
        conn.execute(
            f"""
            INSERT INTO lookings (request_id, person_id, until_at)
            SELECT id, %s, clock_timestamp() + %s
            FROM requests
            WHERE id = %s AND state = 'open' AND {lasting.REQUEST}
            ON CONFLICT (request_id, person_id) DO UPDATE SET until_at = EXCLUDED.until_at
            """,
            (person_id, lease, request_id),
        ).rowcount
        == 1
    )


def stop(conn: Connection, request_id: RequestId, person_id: PersonId) -> None:
    """A person looks no longer."""
    conn.execute("DELETE FROM lookings WHERE request_id = %s AND person_id = %s", (request_id, person_id))


def of_others(conn: Connection, person_id: PersonId, *, most: int) -> dict[RequestId, list[str]]:
    """Who looks at open requests just now, by name, without this person."""
    rows = conn.execute(
        """
        SELECT request_id, array_agg(name ORDER BY name)
        FROM lookings
        JOIN people ON people.id = person_id
        JOIN requests ON requests.id = request_id
        WHERE until_at > statement_timestamp() AND person_id <> %s AND state = 'open' AND disabled_at IS NULL
        GROUP BY request_id
        ORDER BY request_id DESC
        LIMIT %s
        """,
        (person_id, most),
    ).fetchall()
    return {RequestId(request_id): names for request_id, names in rows}
