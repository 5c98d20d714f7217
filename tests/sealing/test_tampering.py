"""Whatever somebody does to a sealed log shows, and where. They own the database, and have not the sealer's key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import LiteralString

import psycopg
import pytest

from banksman import ledger
from banksman.ledger import seals
from banksman.sealing import heads, leaf, tree
from banksman.sealing.heads import Head
from banksman.signing import Signed, Signer
from tests.conftest import Database
from tests.sealing.logs import VERIFIER, as_attacker, cut, ids_of, roll_back, seal, verify, write

SEALED = 600
EVENT = 300


@pytest.fixture
def sealed(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> list[Head]:
    """A log of three heads."""
    for _ in range(3):
        write(worker_pool, SEALED // 3)
        seal(sealer_pool)
    with ledger.transaction(sealer_pool) as conn:
        found = [heads.verify(VERIFIER, signed) for signed in seals.heads(conn, limit=10)]
    assert [head.size for head in found] == [200, 400, 600]
    assert verify(sealer_pool).findings == []
    return found


def leaf_again(conn: psycopg.Connection, number: int) -> None:
    """Change a leaf along with its event, as whoever knows the format would."""
    row = conn.execute(b"SELECT position FROM audit_leaves WHERE id = %s", (number,)).fetchone()
    assert row is not None
    [found] = seals.leaves(conn, row[0], row[0] + 1)
    assert found.event is not None
    conn.execute("UPDATE audit_leaves SET hash = %s WHERE id = %s", (tree.leaf_hash(leaf.entry(found.event)), number))


EDITS: dict[str, LiteralString] = {
    "actor": "UPDATE audit_events SET actor = 'mallory' WHERE id = %(id)s",
    "action": "UPDATE audit_events SET action = 'vote.cast' WHERE id = %(id)s",
    "time": "UPDATE audit_events SET at = at + interval '1 microsecond' WHERE id = %(id)s",
    "run": "UPDATE audit_events SET run_id = gen_random_uuid() WHERE id = %(id)s",
    "request": "UPDATE audit_events SET request_id = gen_random_uuid() WHERE id = %(id)s",
    "body": """UPDATE audit_events SET body = '{"n": 0}' WHERE id = %(id)s""",
}


def put_in(database: Database, statement: LiteralString, *values: object) -> int:
    """Insert an event past every trigger; its number."""
    with as_attacker(database.owner) as conn:
        [[number]] = conn.execute(f"{statement} RETURNING id", values).fetchall()
    return number


@pytest.mark.parametrize("column", EDITS)
def test_an_edited_event_is_named(
    column: str, sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    number = ids_of(sealer_pool)[EVENT]
    with as_attacker(database.owner) as conn:
        conn.execute(EDITS[column], {"id": number})

    [finding] = verify(sealer_pool).findings

    assert finding.startswith(f"Event {number} is not what was sealed (position {EVENT}, head 2)")


def test_a_removed_event_is_named(sealed: list[Head], sealer_pool: ledger.Pool, database: Database) -> None:
    number = ids_of(sealer_pool)[EVENT]
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_events WHERE id = %s", (number,))

    assert verify(sealer_pool).findings == [f"Event {number} was removed (position {EVENT}, head 2)."]


def test_an_event_removed_with_its_leaf_leaves_a_gap(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    number = ids_of(sealer_pool)[EVENT]
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_events WHERE id = %s", (number,))
        conn.execute("DELETE FROM audit_leaves WHERE id = %s", (number,))

    assert f"missing from position {EVENT} on" in verify(sealer_pool).findings[0]


def test_a_gap_that_was_closed_leads_to_no_signed_root(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    number = ids_of(sealer_pool)[EVENT]
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_events WHERE id = %s", (number,))
        conn.execute("DELETE FROM audit_leaves WHERE id = %s", (number,))
        conn.execute("UPDATE audit_leaves SET position = -position WHERE position > %s", (EVENT,))
        conn.execute("UPDATE audit_leaves SET position = -position - 1 WHERE position < 0")

    findings = verify(sealer_pool).findings

    assert any("positions 200 to 399, sealed by head 2" in finding for finding in findings)


def test_an_event_put_in_at_an_older_place_is_named(
    sealed: list[Head], worker_pool: ledger.Pool, sealer_pool: ledger.Pool, database: Database
) -> None:
    number = put_in(
        database,
        """
        INSERT INTO audit_events (xid, at, actor, action)
        SELECT xid, at, 'mallory', 'vote.cast' FROM audit_events ORDER BY xid, id LIMIT 1 OFFSET 300
        """,
    )
    write(worker_pool, 10)
    seal(sealer_pool)

    [finding] = verify(sealer_pool).findings

    assert finding.startswith(f"Event {number} (mallory vote.cast at ")
    assert "was not sealed: put in afterwards" in finding


def test_an_event_written_now_that_says_it_is_older_is_named(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    number = put_in(
        database,
        """
        INSERT INTO audit_events (at, actor, action)
        VALUES (clock_timestamp() - interval '1 hour', 'mallory', 'vote.cast')
        """,
    )
    seal(sealer_pool)

    [finding] = verify(sealer_pool).findings

    assert finding.startswith(f"Event {number} says ")
    assert "written after head 3" in finding


def test_two_events_that_changed_places_are_named(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    order = ids_of(sealer_pool)
    one, other = order[EVENT], order[EVENT + 7]
    with as_attacker(database.owner) as conn:
        conn.execute(
            """
            UPDATE audit_events SET body = other.body, at = other.at
            FROM (SELECT id, body, at FROM audit_events WHERE id = ANY (%s)) AS other
            WHERE audit_events.id = ANY (%s) AND other.id <> audit_events.id
            """,
            ([one, other], [one, other]),
        )

    assert [finding.split(" is not")[0] for finding in verify(sealer_pool).findings] == [
        f"Event {one}",
        f"Event {other}",
    ]


def test_two_leaves_that_changed_places_lead_to_no_signed_root(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    with as_attacker(database.owner) as conn:
        for old, new in ((300, -1), (301, 300), (-1, 301)):
            conn.execute("UPDATE audit_leaves SET position = %s WHERE position = %s", (new, old))

    [finding] = [text for text in verify(sealer_pool).findings if "signed root" in text]

    assert "positions 200 to 399, sealed by head 2" in finding


def test_an_event_changed_along_with_its_leaf_leads_to_no_signed_root(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    number = ids_of(sealer_pool)[EVENT]
    with as_attacker(database.owner) as conn:
        conn.execute(EDITS["actor"], {"id": number})
        leaf_again(conn, number)

    [finding] = [text for text in verify(sealer_pool).findings if "signed root" in text]

    assert "positions 200 to 399, sealed by head 2" in finding


def test_a_kept_node_that_was_changed_is_named(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    with as_attacker(database.owner) as conn:
        conn.execute("UPDATE audit_nodes SET hash = sha256('x') WHERE number = 1")

    assert verify(sealer_pool).findings == ["The kept node 1 of tier 1 was changed or removed."]


def test_a_cut_off_end_shows_by_the_heads(sealed: list[Head], sealer_pool: ledger.Pool, database: Database) -> None:
    with as_attacker(database.owner) as conn:
        cut(conn, 550)

    assert verify(sealer_pool).findings[0].startswith("50 leaves are missing (positions 400 to 599, sealed by head 3")


@pytest.mark.parametrize("grown", [False, True])
def test_a_log_that_was_rolled_back_shows_by_the_anchor_alone(
    grown: bool, sealed: list[Head], worker_pool: ledger.Pool, sealer_pool: ledger.Pool, database: Database
) -> None:
    with ledger.transaction(sealer_pool) as conn:
        anchored = seals.heads(conn, limit=10)
    with as_attacker(database.owner) as conn:
        roll_back(conn, heads=2)
    if grown:
        write(worker_pool, 50)
        seal(sealer_pool)

    assert verify(sealer_pool).findings == []
    [finding] = verify(sealer_pool, *anchored).findings

    assert finding.startswith("Head 3 is not the one that was anchored" if grown else "Head 3 (600 events at ")


FORGERIES: dict[str, Callable[[Signed], Signed]] = {
    "another key of that name": lambda it: Signer("s1", b"\x09" * 32).sign(_stated(it), "head"),
    "another key": lambda it: Signer("s9", b"\x09" * 32).sign(_stated(it), "head"),
    "another root": lambda it: replace(it, statement=it.statement.replace(b'"root":"', b'"root":"00')),
    "another purpose": lambda it: Signer("s1", b"\x05" * 32).sign(_stated(it), "decision"),
}


def _stated(signed: Signed) -> dict[str, object]:
    return json.loads(signed.statement)


@pytest.mark.parametrize("way", FORGERIES)
def test_a_forged_head_is_named(way: str, sealed: list[Head], sealer_pool: ledger.Pool, database: Database) -> None:
    with as_attacker(database.owner) as conn:
        kept = seals.newest_head(conn)
        assert kept is not None
        forged = FORGERIES[way](kept)
        conn.execute(
            "UPDATE audit_heads SET statement = %s, signature = %s, kid = %s WHERE number = 3",
            (forged.statement, forged.signature, forged.kid),
        )

    findings = verify(sealer_pool).findings

    assert findings[0].startswith("The head after head 2 is not genuine")


def test_a_head_that_was_taken_out_shows(sealed: list[Head], sealer_pool: ledger.Pool, database: Database) -> None:
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_heads WHERE number = 2")

    assert verify(sealer_pool).findings[0] == "Head 3 does not follow head 1: heads were removed or replaced."


def test_leaves_without_any_head_show(sealed: list[Head], sealer_pool: ledger.Pool, database: Database) -> None:
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_heads")

    assert verify(sealer_pool).findings == ["600 leaves stand under no head: every head was removed."]


@pytest.mark.parametrize("low", [True, False])
def test_an_older_event_behind_a_move_that_was_made_up_is_named(
    low: bool, sealed: list[Head], worker_pool: ledger.Pool, sealer_pool: ledger.Pool, database: Database
) -> None:
    """Before the move is sealed, by its place; then also where its place is a new one."""
    number = put_in(
        database,
        """
        INSERT INTO audit_events (xid, at, actor, action)
        SELECT CASE WHEN %s THEN xid ELSE audit_xid() END, at - interval '1 year', 'mallory', 'vote.cast'
        FROM audit_events
        ORDER BY xid, id
        LIMIT 1
        """,
        low,
    )
    with as_attacker(database.owner) as conn:
        conn.execute("INSERT INTO audit_homes (number, cluster, xid, floor) VALUES (2, 1, audit_xid(), 1000000)")

    pending = verify(sealer_pool)
    with as_attacker(database.owner) as conn:
        conn.execute("UPDATE audit_homes SET cluster = (SELECT system_identifier FROM pg_control_system())")
    seal(sealer_pool)
    sealed_then = verify(sealer_pool)

    assert (pending.moves, sealed_then.moves) == (1, 1)
    assert len(pending.findings) == low
    assert all(finding.startswith(f"Event {number} (mallory vote.cast at ") for finding in pending.findings)
    [finding] = sealed_then.findings
    assert finding.startswith(f"Event {number} says ")
    assert "put in afterwards" in finding


def test_what_a_restored_log_got_before_its_migration_is_no_finding(
    sealed: list[Head], sealer_pool: ledger.Pool, database: Database
) -> None:
    """Its place is a low one in another PostgreSQL, and its time says that it came after the head."""
    with as_attacker(database.owner) as conn:
        conn.execute("INSERT INTO audit_events (xid, actor, action) VALUES ('5', 'worker:1', 'x.happened')")
        conn.execute(
            """
            INSERT INTO audit_homes (number, cluster, xid, floor)
            SELECT 2, system_identifier, audit_xid(), 1000000 FROM pg_control_system()
            """
        )

    pending = verify(sealer_pool)
    seal(sealer_pool)
    after = verify(sealer_pool)

    assert (pending.findings, pending.moves, after.findings, after.moves, after.events) == ([], 1, [], 1, 601)
