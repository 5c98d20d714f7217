"""Votes: rows that are never changed, one standing for each person and revision. Only the gateway's `decide` casts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from banksman import vault
from banksman.ids import KeyId, PersonId, RequestId, VoteId
from banksman.ledger import Connection
from banksman.records import Vote
from banksman.states import Verdict


def cast(conn: Connection, vote: Vote) -> bool:
    """Write a vote; False when its voter already has one on this revision."""
    return (
        conn.execute(
            """
            INSERT INTO votes (id, request_id, revision, digest, verdict, person_id, key_id, reason, answer, channel,
                               render_hash, mac, replaces)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (request_id, revision, COALESCE(person_id, key_id), replaces) DO NOTHING
            """,
            (
                vote.id,
                vote.request_id,
                vote.revision,
                vote.digest,
                vote.verdict,
                vote.person_id,
                vote.key_id,
                None if vote.reason is None else vault.seal(vote.reason.encode(), ("votes.reason", vote.id)),
                None
                if vote.answer is None
                else vault.seal(json.dumps(vote.answer).encode(), ("votes.answer", vote.id)),
                vote.channel,
                vote.render_hash,
                vote.mac,
                vote.replaces,
            ),
        ).rowcount
        == 1
    )


COLUMNS = """votes.id, votes.request_id, votes.revision, votes.digest, votes.verdict, votes.channel, votes.person_id,
       votes.key_id, votes.reason, votes.answer, votes.render_hash, votes.mac, votes.created_at, votes.replaces,
       (SELECT json_object_agg(mac, created_at) FROM withdrawals WHERE vote_id = votes.id)"""


def of_request(conn: Connection, request_id: RequestId) -> Sequence[Vote]:
    """The votes on a request, oldest first, those that were taken back among them."""
    rows = conn.execute(f"SELECT {COLUMNS} FROM votes WHERE request_id = %s ORDER BY id", (request_id,)).fetchall()
    return [of_row(row) for row in rows]


def of_row(row: Sequence[Any]) -> Vote:
    """The vote behind a row of `COLUMNS`."""
    (vote_id, request_id, revision, digest, verdict, channel, person_id, key_id, reason, answer, render_hash, mac,
     created_at, replaces, withdrawals) = row  # fmt: skip
    return Vote(
        id=VoteId(vote_id),
        request_id=RequestId(request_id),
        revision=revision,
        digest=digest,
        verdict=Verdict(verdict),
        channel=channel,
        person_id=None if person_id is None else PersonId(person_id),
        key_id=None if key_id is None else KeyId(key_id),
        reason=None if reason is None else vault.open_sealed(reason, ("votes.reason", vote_id)).decode(),
        answer=None if answer is None else json.loads(vault.open_sealed(answer, ("votes.answer", vote_id))),
        render_hash=render_hash,
        mac=mac,
        created_at=created_at,
        replaces=None if replaces is None else VoteId(replaces),
        withdrawals=withdrawals or {},
    )
