"""Remarks: what people ask and answer below a request before it is decided (read by `views.company`)."""

from __future__ import annotations

from collections.abc import Sequence

from banksman import vault
from banksman.ids import NoticeId, PersonId, RemarkId, RequestId
from banksman.ledger import Connection, lasting


def add(
    conn: Connection, remark_id: RemarkId, request_id: RequestId, person_id: PersonId, text: str, *, most: int
) -> bool:
    """Nothing → a remark, while the request is open and has fewer than `most` of them."""
    return (
        conn.execute(
            f"""
            INSERT INTO remarks (id, request_id, person_id, body)
            SELECT %(id)s, requests.id, %(person)s, %(body)s
            FROM requests
            WHERE requests.id = %(request)s AND state = 'open' AND {lasting.REQUEST}
              AND (SELECT count(*) FROM remarks WHERE remarks.request_id = requests.id) < %(most)s
            """,
            {
                "id": remark_id,
                "request": request_id,
                "person": person_id,
                "body": vault.seal(text.encode(), ("remarks.body", remark_id)),
                "most": most,
            },
        ).rowcount
        == 1
    )


def tell(conn: Connection, request_id: RequestId, notices: Sequence[tuple[NoticeId, PersonId]]) -> Sequence[NoticeId]:
    """One notice of kind `remark` for each of these people, unless one is about to go to them; those made."""
    rows = conn.execute(
        """
        INSERT INTO notices (id, kind, person_id, request_id, revision, due_at, expires_at)
        SELECT notice, 'remark', person, requests.id, requests.revision, clock_timestamp(), expires_at
        FROM requests, unnest(%s::uuid[], %s::uuid[]) AS told (notice, person)
        WHERE requests.id = %s AND state = 'open'
          AND NOT EXISTS (
              SELECT FROM notices AS due
              WHERE due.request_id = requests.id AND due.kind = 'remark' AND due.person_id = person
                AND due.state = 'due')
        RETURNING id
        """,
        ([notice for notice, _ in notices], [person for _, person in notices], request_id),
    ).fetchall()
    return [NoticeId(row[0]) for row in rows]


def authors(conn: Connection, request_id: RequestId) -> Sequence[PersonId]:
    """Who has written below a request and is still there."""
    rows = conn.execute(
        """
        SELECT DISTINCT person_id
        FROM remarks
        JOIN people ON people.id = person_id
        WHERE request_id = %s AND disabled_at IS NULL
        ORDER BY person_id
        """,
        (request_id,),
    ).fetchall()
    return [PersonId(row[0]) for row in rows]
