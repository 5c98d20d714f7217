"""Sealing: in the order of the log, below the horizon, and never over a tree that was damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import rfc8785

from banksman import ids, ledger
from banksman.errors import ConfigurationError, NotFound, NotGenuine
from banksman.ids import RequestId
from banksman.ledger import audit, migrate, seals
from banksman.records import Event
from banksman.sealing import heads, leaf, proof, sealer, tree
from banksman.signing import Signer, Verifier
from tests.conftest import PASSWORDS, Database
from tests.sealing.logs import SIGNER, VERIFIER, as_attacker, seal, verify, write


def test_the_log_is_sealed_in_its_order_and_holds(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> None:
    write(worker_pool, 700)

    first = seal(sealer_pool, limit=300)
    write(worker_pool, 3)
    second = seal(sealer_pool)

    assert [head.size for head in (*first, *second)] == [300, 600, 700, 703]
    report = verify(sealer_pool)
    assert (report.findings, report.events, report.heads, report.waiting) == ([], 703, 4, 0)
    assert seal(sealer_pool) == []
    with ledger.transaction(sealer_pool) as conn:
        rows = seals.unsealed(conn, (0, 0), horizon=2**53, limit=1000)
    assert second[-1].root == _plain_root([tree.leaf_hash(leaf.entry(row)) for row in rows])


def _plain_root(leaves: list[bytes]) -> bytes:
    frontier = tree.Frontier()
    frontier.extend(leaves)
    return frontier.root()


def test_what_commits_late_is_neither_skipped_nor_put_in_between(
    worker_pool: ledger.Pool, sealer_pool: ledger.Pool
) -> None:
    with ledger.transaction(worker_pool) as early:
        audit.append(early, Event("early", "x"))
        write(worker_pool, 5)
        assert seal(sealer_pool) == []
    [head] = seal(sealer_pool)

    assert head.size == 6
    with ledger.transaction(sealer_pool) as conn:
        assert seals.leaves(conn, 0, 1)[0].event[3] == "early"  # pyright: ignore[reportOptionalSubscript]
    assert verify(sealer_pool).findings == []


def test_of_two_sealers_one_seals(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> None:
    write(worker_pool, 5)

    with ledger.transaction(sealer_pool) as other:
        assert seals.take_turn(other)
        assert seal(sealer_pool) == []

    assert [head.size for head in seal(sealer_pool)] == [5]


@pytest.mark.parametrize(
    "body",
    [
        '{"b": 1, "a": "é\\u0007\\"\\\\", "\\u20ac": null, "c": {"z": [true, false], "y": -5}}',
        '{"fraction": 1.50, "large": 1e21, "small": 0.000001}',
        '{"\\ud83d\\ude00": 1, "\\ufb33": 2}',
        '{"exact": 9007199254740991}',
    ],
)
def test_an_event_has_the_bytes_of_rfc_8785(body: str) -> None:
    entry = leaf.entry((7, 9, "2026-11-22T10:00:00.000001Z", "per_1", "x", "ab", None, body))

    assert entry == rfc8785.dumps(json.loads(entry))
    assert json.loads(entry)["body"] == json.loads(body)
    assert json.loads(entry)["run_id"] == "run_ab"


@pytest.mark.parametrize("body", ['{"n": 9007199254740993}', '{"n": 1e400}', '{"n":' + "[" * 2000 + "]" * 2000 + "}"])
def test_a_body_without_a_canonical_form_is_sealed_as_text(
    body: str, worker_pool: ledger.Pool, sealer_pool: ledger.Pool
) -> None:
    with ledger.transaction(worker_pool) as conn:
        conn.execute("INSERT INTO audit_events (actor, action, body) VALUES ('w', 'x', %s::text::jsonb)", (body,))

    assert [head.size for head in seal(sealer_pool)] == [1]

    with ledger.transaction(sealer_pool) as conn:
        [row] = seals.unsealed(conn, (0, 0), horizon=2**53, limit=1)
    assert json.loads(leaf.entry(row))["text"] == row[7]
    assert verify(sealer_pool).findings == []


def test_a_damaged_tree_is_never_signed_anew(
    worker_pool: ledger.Pool, sealer_pool: ledger.Pool, database: Database
) -> None:
    write(worker_pool, 5)
    seal(sealer_pool)
    with as_attacker(database.owner) as conn:
        conn.execute("UPDATE audit_leaves SET hash = sha256('x') WHERE position = 4")
    write(worker_pool, 5)

    with pytest.raises(NotGenuine, match="banksman audit verify"):
        seal(sealer_pool)


def test_a_head_of_a_strange_key_is_not_built_upon(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> None:
    write(worker_pool, 5)
    with ledger.transaction(sealer_pool) as conn:
        assert sealer.seal(conn, Signer("s1", b"\x06" * 32), VERIFIER) is not None
    write(worker_pool, 5)

    with pytest.raises(NotGenuine):
        seal(sealer_pool)


def test_a_dump_that_is_restored_elsewhere_is_sealed_on(
    worker_pool: ledger.Pool, sealer_pool: ledger.Pool, gateway_pool: ledger.Pool, database: Database
) -> None:
    """Its transaction ids begin below the stored ones: told by ids far ahead, and another PostgreSQL's name."""
    write(worker_pool, 5)
    seal(sealer_pool)
    with as_attacker(database.owner) as conn:
        # As restored: places that this PostgreSQL has not reached yet, the last two events not sealed.
        conn.execute("UPDATE audit_homes SET cluster = 1")
        conn.execute(
            "INSERT INTO audit_events (xid, actor, action) SELECT '900000000', 'old', 'x' FROM generate_series(1, 2)"
        )
    write(worker_pool, 1)
    with pytest.raises(ConfigurationError, match="banksman migrate"):
        seal(sealer_pool)

    migrate.migrate(database.owner, passwords=PASSWORDS)

    write(worker_pool, 4)
    assert [head.size for head in seal(sealer_pool, limit=2)] == [7, 9, 11, 12]
    write(worker_pool, 1)
    assert [head.size for head in seal(sealer_pool)] == [13]
    report = verify(sealer_pool)
    assert (report.findings, report.moves) == ([], 1)
    with ledger.transaction(gateway_pool) as conn:
        assert [event.actor for event in audit.since(conn, (900000000, 2**53))] == ["worker:1"] * 5


def test_a_proof_holds_offline_and_for_nothing_else(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> None:
    request = RequestId(ids.new())
    write(worker_pool, 300)
    write(worker_pool, 3, request=request)
    with ledger.transaction(sealer_pool) as conn, pytest.raises(NotFound):
        proof.prove(conn, request)
    write(worker_pool, 300)
    seal(sealer_pool, limit=200)
    write(worker_pool, 1, request=request)
    with ledger.transaction(sealer_pool) as conn:
        made = json.loads(json.dumps(proof.prove(conn, request)))

    shown = proof.check(made, VERIFIER)

    assert (shown.events, shown.unsealed, shown.head.size) == (3, 1, 603)
    changes: list[Callable[[Any], object]] = [
        lambda it: it["events"][0]["event"].update(action="y"),
        lambda it: it["events"][0].update(position=299),
        lambda it: it["events"][1]["path"].reverse(),
        lambda it: it.update(request_id="req_" + "0" * 32),
        lambda it: it["head"].update(statement=it["head"]["statement"].replace("603", "604")),
    ]
    for change in changes:
        forged = json.loads(json.dumps(made))
        change(forged)
        with pytest.raises(NotGenuine):
            proof.check(forged, VERIFIER)
    with pytest.raises(NotGenuine):
        proof.check(made, Verifier.read(Signer("s1", b"\x07" * 32).public()))


def test_a_head_is_handed_out_and_read_back(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> None:
    write(worker_pool, 1)
    [head] = seal(sealer_pool)
    with ledger.transaction(sealer_pool) as conn:
        signed = seals.newest_head(conn)

    assert signed is not None
    assert heads.from_json(json.loads(json.dumps(heads.to_json(signed)))) == signed
    assert heads.verify(VERIFIER, signed) == head
    assert signed.kid == SIGNER.kid


def test_the_sealer_writes_leaves_and_heads_and_nothing_else(sealer_pool: ledger.Pool) -> None:
    for statement in (
        b"INSERT INTO audit_events (actor, action) VALUES ('a', 'b')",
        b"INSERT INTO audit_homes (number, cluster, xid, floor) VALUES (9, 9, '9', 9)",
        b"UPDATE audit_heads SET size = 1",
        b"SELECT FROM votes",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), ledger.transaction(sealer_pool) as conn:
            conn.execute(statement)
