"""Logs to seal and to tamper with. Tampering is the database owner's: nobody else could."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import psycopg

from banksman import ids, ledger
from banksman.ids import RequestId, RunId
from banksman.ledger import audit
from banksman.records import Event
from banksman.sealing import check, sealer
from banksman.sealing.heads import Head
from banksman.sealing.report import Report
from banksman.signing import Signed, Signer, Verifier

SIGNER = Signer("s1", b"\x05" * 32)
VERIFIER = Verifier.read(SIGNER.public())


def write(pool: ledger.Pool, count: int, *, request: RequestId | None = None) -> None:
    """So many events, in one transaction."""
    run = RunId(ids.new())
    with ledger.transaction(pool) as conn:
        audit.append(conn, *(Event("worker:1", "x.happened", run, request, {"n": number}) for number in range(count)))


def seal(pool: ledger.Pool, *, limit: int = sealer.AT_ONCE, signer: Signer = SIGNER) -> list[Head]:
    """Seal all that is complete."""
    found: list[Head] = []
    while True:
        with ledger.transaction(pool) as conn:
            head = sealer.seal(conn, signer, VERIFIER, limit=limit)
        if head is None:
            return found
        found.append(head)


def verify(pool: ledger.Pool, *anchored: Signed) -> Report:
    """What `banksman audit verify` sees."""
    with ledger.transaction(pool) as conn:
        return check.check(conn, VERIFIER, anchored=anchored)


@contextmanager
def as_attacker(url: str) -> Generator[psycopg.Connection]:
    """The database's owner, past every trigger."""
    with psycopg.connect(url) as conn:
        conn.execute("SET session_replication_role = replica")
        yield conn


def ids_of(pool: ledger.Pool) -> Sequence[int]:
    """The events' numbers in the order of the log."""
    with ledger.transaction(pool) as conn:
        return [row[0] for row in conn.execute("SELECT id FROM audit_events ORDER BY xid, id")]


def cut(conn: psycopg.Connection, size: int) -> None:
    """Remove every event after so many, and its leaf."""
    conn.execute(
        "DELETE FROM audit_events USING audit_leaves WHERE audit_events.id = audit_leaves.id AND position >= %s",
        (size,),
    )
    conn.execute("DELETE FROM audit_leaves WHERE position >= %s", (size,))


def roll_back(conn: psycopg.Connection, *, heads: int) -> None:
    """Events, leaves, nodes and heads: all as if nothing had been after so many heads."""
    row = conn.execute("SELECT size FROM audit_heads WHERE number = %s", (heads,)).fetchone()
    assert row is not None
    cut(conn, row[0])
    conn.execute("DELETE FROM audit_nodes WHERE tier > 1 OR number >= %s / 256", (row[0],))
    conn.execute("DELETE FROM audit_heads WHERE number > %s", (heads,))
