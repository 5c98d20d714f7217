"""Decisions: the signed outcome of a request, never changed. Only the gateway's `decide` writes here."""

from __future__ import annotations

from banksman import vault
from banksman.ids import RequestId
from banksman.ledger import Connection
from banksman.ledger.requests import decision_of
from banksman.records import Decision


def settle(conn: Connection, decision: Decision) -> bool:
    """Open at the decided revision → approved, denied or answered; False when something settled it before."""
    return (
        conn.execute(
            """
            WITH settled AS (
                UPDATE requests
                SET state = %(verdict)s, settled_at = clock_timestamp(), due_at = NULL
                WHERE id = %(id)s AND state = 'open' AND revision = %(revision)s
                RETURNING id
            )
            INSERT INTO decisions (request_id, revision, verdict, statement, signature, kid, start_by)
            SELECT id, %(revision)s, %(verdict)s, %(statement)s, %(signature)s, %(kid)s, %(start_by)s
            FROM settled
            """,
            {
                "id": decision.request_id,
                "revision": decision.revision,
                "verdict": decision.verdict,
                "statement": vault.seal(decision.signed.statement, ("decisions.statement", decision.request_id)),
                "signature": decision.signed.signature,
                "kid": decision.signed.kid,
                "start_by": decision.start_by,
            },
        ).rowcount
        == 1
    )


def get(conn: Connection, request_id: RequestId) -> Decision | None:
    """The decision on a request, if people reached one."""
    row = conn.execute(
        """
        SELECT revision, verdict, statement, signature, kid, start_by, created_at
        FROM decisions_now
        WHERE request_id = %s
        """,
        (request_id,),
    ).fetchone()
    return None if row is None else decision_of(request_id, row)
