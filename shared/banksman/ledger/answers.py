"""Answers kept under an Idempotency-Key, so that a client may repeat itself for a day and be told the same."""

from __future__ import annotations

from banksman import vault
from banksman.ledger import Connection


def reserve(conn: Connection, actor: str, key: str, fingerprint: bytes) -> tuple[bytes, int, bytes] | None:
    """Take the key for this transaction, or return the (fingerprint, status, body) that it stands for already.

    A second caller waits here until the first one's transaction is over.
    """
    taken = conn.execute(
        """
        INSERT INTO answers (actor, key, fingerprint, status, body) VALUES (%s, %s, %s, 0, '')
        ON CONFLICT (actor, key) DO NOTHING
        """,
        (actor, key, fingerprint),
    ).rowcount
    if taken:
        return None
    row = conn.execute(
        "SELECT fingerprint, status, body FROM answers WHERE actor = %s AND key = %s", (actor, key)
    ).fetchone()
    assert row is not None
    return row[0], row[1], vault.open_sealed(row[2], ("answers.body", actor, key))


def keep(conn: Connection, actor: str, key: str, *, status: int, body: bytes) -> None:
    """The answer that goes out with this transaction."""
    conn.execute(
        "UPDATE answers SET status = %s, body = %s WHERE actor = %s AND key = %s",
        (status, vault.seal(body, ("answers.body", actor, key)), actor, key),
    )


def forget(conn: Connection) -> None:
    """Answers older than a day → gone."""
    conn.execute("DELETE FROM answers WHERE created_at < clock_timestamp() - interval '24 hours'")
