"""Snapshots: the conversation and the run's own state, appended step by step, and the files that they point to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from banksman import vault
from banksman.ids import RunId
from banksman.ledger import Connection
from banksman.records import Snapshot


def save(conn: Connection, run_id: RunId, fence: int, snapshot: Snapshot) -> bool:
    """Append a snapshot while the lease holds; False when it no longer does."""
    return (
        conn.execute(
            """
            INSERT INTO snapshots (run_id, seq, segment, kept, messages, state)
            SELECT id, %s, %s, %s, %s, %s
            FROM runs
            WHERE id = %s AND fence = %s AND status = 'running' AND due_at > clock_timestamp()
            ON CONFLICT DO NOTHING
            """,
            (
                snapshot.seq,
                snapshot.segment,
                snapshot.kept,
                vault.seal(snapshot.messages, ("snapshots.messages", run_id, snapshot.seq)),
                vault.seal(snapshot.state, ("snapshots.state", run_id, snapshot.seq)),
                run_id,
                fence,
            ),
        ).rowcount
        == 1
    )


def load(conn: Connection, run_id: RunId) -> Sequence[Snapshot]:
    """Every snapshot of a run, oldest first: folded, they are its conversation."""
    rows = conn.execute(
        "SELECT seq, segment, kept, messages, state FROM snapshots WHERE run_id = %s ORDER BY seq", (run_id,)
    ).fetchall()
    return [
        Snapshot(
            seq,
            segment,
            kept,
            vault.open_sealed(messages, ("snapshots.messages", run_id, seq)),
            vault.open_sealed(state, ("snapshots.state", run_id, seq)),
        )
        for seq, segment, kept, messages, state in rows
    ]


def keep_blobs(conn: Connection, run_id: RunId, blobs: Mapping[str, bytes]) -> None:
    """Store file contents by their SHA-256 in hex; what is there already stays."""
    conn.execute(
        """
        INSERT INTO blobs (run_id, hash, body)
        SELECT %s, hash, body
        FROM unnest(%s::bytea[], %s::bytea[]) AS new (hash, body)
        ON CONFLICT DO NOTHING
        """,
        (
            run_id,
            [bytes.fromhex(name) for name in blobs],
            [vault.seal(body, ("blobs.body", run_id, name)) for name, body in blobs.items()],
        ),
    )


def blobs(conn: Connection, run_id: RunId, names: Collection[str]) -> dict[str, bytes]:
    """File contents by their SHA-256 in hex."""
    if not names:
        return {}
    rows = conn.execute(
        "SELECT encode(hash, 'hex'), body FROM blobs WHERE run_id = %s AND hash = ANY(%s)",
        (run_id, [bytes.fromhex(name) for name in names]),
    ).fetchall()
    return {name: vault.open_sealed(body, ("blobs.body", run_id, name)) for name, body in rows}
