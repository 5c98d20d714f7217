"""Sealing: in the order of the log, below the horizon, and never over a tree that was damaged."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import rfc8785

from banksman import ids, ledger
from banksman.embedded import postgres
from banksman.embedded.postgres import Postgres
from banksman.errors import ConfigurationError, InvalidInput, NotFound, NotGenuine, Unavailable
from banksman.ids import RequestId
from banksman.ledger import audit, migrate, seals, trail
from banksman.ledger.trail import Wanted
from banksman.records import Event
from banksman.sealing import check, heads, key_change, leaf, proof, sealer, tree
from banksman.signing import Signer, Verifier, base64url
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


def test_a_part_of_the_log_is_read_without_the_rest(
    worker_pool: ledger.Pool, gateway_pool: ledger.Pool, database: Database
) -> None:
    """Else all of a long log would be sorted for every part of it."""
    for _ in range(20):
        write(worker_pool, 100)
    with psycopg.connect(database.owner, autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE audit_events")
    parts: dict[str, Callable[[ledger.Connection], object]] = {
        "the sealer": lambda conn: seals.unsealed(conn, (0, 0), horizon=2**53, limit=50),
        "an auditor": lambda conn: trail.read(conn, Wanted(), cursor=None, limit=50),
        "an event stream": lambda conn: audit.since(conn, (0, 0), limit=50),
        "whoever checks": lambda conn: seals.leaves(conn, 0, 50),
    }

    read: dict[str, int] = {}
    for name, part in parts.items():
        with ledger.transaction(gateway_pool) as conn:
            part(conn)
            row = conn.execute(
                """
                SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int
                FROM pg_stat_xact_user_tables
                WHERE relname = 'audit_events'
                """
            ).fetchone()
        assert row is not None
        read[name] = row[0]

    assert max(read.values()) < 500, read


def test_a_sealer_that_is_cut_off_leaves_nothing_and_the_next_one_goes_on(
    worker_pool: ledger.Pool, sealer_pool: ledger.Pool, database: Database
) -> None:
    write(worker_pool, 300)
    seal(sealer_pool, limit=100)
    write(worker_pool, 100)

    def cut_off(conn: ledger.Connection) -> None:
        assert sealer.seal(conn, SIGNER, VERIFIER) is not None
        with psycopg.connect(database.owner, autocommit=True) as owner:
            owner.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))

    with pytest.raises(Unavailable), ledger.transaction(sealer_pool) as conn:
        cut_off(conn)

    assert verify(sealer_pool).heads == 3
    assert [head.size for head in seal(sealer_pool)] == [400]
    assert verify(sealer_pool).findings == []


def test_sealers_at_once_make_one_chain(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> None:
    write(worker_pool, 400)
    start = threading.Barrier(4)

    def seals_on(_: int) -> int:
        start.wait(60)
        return sum(len(seal(sealer_pool, limit=20)) for _ in range(3))

    with ThreadPoolExecutor(4) as at_once:
        list(at_once.map(seals_on, range(4)))
    seal(sealer_pool, limit=20)

    report = verify(sealer_pool)
    assert (report.findings, report.events, report.heads) == ([], 400, 20)


def test_another_key_seals_on_and_the_heads_of_the_one_before_hold_until_it_is_revoked(
    worker_pool: ledger.Pool, sealer_pool: ledger.Pool
) -> None:
    made, keys, old = key_change.after(f"s1:{base64url(bytes([5]) * 32)}", "")
    second, both = Signer.read(made), Verifier.read(keys)
    write(worker_pool, 5)
    seal(sealer_pool)
    write(worker_pool, 5)
    with ledger.transaction(sealer_pool) as conn, pytest.raises(NotGenuine, match="does not know"):
        sealer.seal(conn, second, Verifier.read(second.public()))

    with ledger.transaction(sealer_pool) as conn:
        assert sealer.seal(conn, second, both) is not None
    with ledger.transaction(sealer_pool) as conn:
        kept = check.check(conn, both)
        revoked = check.check(conn, Verifier.read(keys.replace("s1:retired", "s1:revoked")))

    assert (old, kept.findings, kept.heads) == ("s1", [], 2)
    assert revoked.findings == [
        "The head after head 0 is not genuine: The head is signed with key 's1', which has been revoked."
    ]


def test_a_dump_goes_on_elsewhere_and_heads_that_were_kept_tell_its_age(
    worker_pool: ledger.Pool,
    sealer_pool: ledger.Pool,
    postgres_server: Postgres,
    database: Database,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By PostgreSQL's own pg_dump and pg_restore, into a server whose transaction ids begin anew."""
    for _ in range(2):
        write(worker_pool, 300)
        seal(sealer_pool)
    write(worker_pool, 7)
    folder = tmp_path_factory.mktemp("elsewhere")
    dump, tools = folder / "dump", postgres_server.install.bin
    clean = {"PATH": "/usr/bin:/bin"}
    subprocess.run([tools / "pg_dump", "-Fc", "-f", dump, database.owner], check=True, env=clean)
    write(worker_pool, 50)
    seal(sealer_pool)
    with ledger.transaction(sealer_pool) as conn:
        kept = seals.heads(conn, limit=10)

    with postgres.running(folder / "home", durable=False) as server:
        migrate.migrate(server.url("postgres"), passwords=PASSWORDS)
        subprocess.run([tools / "pg_restore", "-d", server.url(), "--no-owner", dump], check=True, env=clean)
        migrate.migrate(server.url(), passwords=PASSWORDS)
        there = ledger.open_pool(
            server.url(user="banksman_sealer", password=PASSWORDS["banksman_sealer"]), size=2, name="there"
        )
        try:
            with ledger.once(server.url(), name="there") as conn:
                audit.append(conn, Event("worker:1", "x.happened"))
            sizes = [head.size for head in seal(there)]
            report, older = verify(there), verify(there, *kept)
        finally:
            there.close()

    assert [head.size for head in map(heads.read, kept)] == [300, 600, 657]
    assert sizes == [608]
    assert (report.findings, report.heads, report.moves, report.waiting) == ([], 3, 1, 0)
    assert [finding.partition(" (")[0] for finding in older.findings] == ["Head 3 is not the one that was anchored"]


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
        lambda it: it["events"].append(it["events"][0]),
        lambda it: it["events"].clear(),
        lambda it: it.update(request_id="req_" + "0" * 32),
        lambda it: it["head"].update(statement=it["head"]["statement"].replace("603", "604")),
    ]
    for change in changes:
        forged = json.loads(json.dumps(made))
        change(forged)
        with pytest.raises(NotGenuine):
            proof.check(forged, VERIFIER)
    with pytest.raises(InvalidInput):
        proof.check(made | {"request_id": "req_\x1b[2J"}, VERIFIER)
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
