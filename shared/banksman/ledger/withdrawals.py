"""Withdrawals: votes that their voters took back. Only the gateway's `withdraw` calls this."""

from __future__ import annotations

from banksman.ids import RequestId, VoteId
from banksman.ledger import Connection, lasting


def add(conn: Connection, request_id: RequestId, vote_id: VoteId, mark: str) -> bool:
    """A standing vote → taken back, while its request is open at the revision that it is on."""
    return (
        conn.execute(
            f"""
            INSERT INTO withdrawals (vote_id, mac)
            SELECT votes.id, %s
            FROM votes
            JOIN requests ON requests.id = request_id AND requests.revision = votes.revision
            WHERE votes.id = %s AND request_id = %s AND state = 'open' AND {lasting.REQUEST}
            ON CONFLICT DO NOTHING
            """,
            (mark, vote_id, request_id),
        ).rowcount
        == 1
    )
