"""An export is checked without the database, by Banksman and by anybody's own program."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from banksman import ledger
from banksman.errors import ConfigurationError, NotGenuine
from banksman.ledger import seals
from banksman.sealing import exported
from banksman.sealing.receipts import Named
from banksman.signing import Signer, Verifier
from tests.conftest import Database
from tests.sealing import outsider
from tests.sealing.logs import SIGNER, VERIFIER, as_attacker, ids_of, seal, write

Lines = list[bytes]


@pytest.fixture
def log(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> Lines:
    """An export of three heads over 300 events each and two events that are not sealed: lines 301, 602 and 903."""
    for _ in range(3):
        write(worker_pool, 300)
        seal(sealer_pool)
    write(worker_pool, 2)
    return lines(sealer_pool)


def lines(pool: ledger.Pool) -> Lines:
    with ledger.transaction(pool) as conn:
        return list(exported.lines(conn))


def test_an_export_holds_by_itself_and_by_an_outsiders_program(log: Lines) -> None:
    report = exported.check(log, VERIFIER)

    assert (report.findings, report.events, report.heads, report.waiting) == ([], 900, 3, 2)
    assert len(log) == 905
    assert outsider.verify(b"".join(log), SIGNER.public()) == "good"


def swapped(log: Lines) -> Lines:
    return [*log[:310], log[311], log[310], *log[312:]]


def with_head(log: Lines, at: int, change: Callable[[dict[str, str]], dict[str, str]]) -> Lines:
    return [*log[:at], json.dumps(change(json.loads(log[at]))).encode() + b"\n", *log[at + 1 :]]


def signed_anew(head: dict[str, str]) -> dict[str, str]:
    stated = json.loads(head["statement"]) | {"size": 599}
    forged = Signer("s1", b"\x09" * 32).sign(stated, "head")
    return {"statement": forged.statement.decode(), "signature": head["signature"], "kid": "s1"}


TAMPERING: dict[str, tuple[Callable[[Lines], Lines], str, str]] = {
    "edited": (
        lambda log: [*log[:310], log[310].replace(b"worker:1", b"worker:2"), *log[311:]],
        "An event is not what was sealed, or not in its place: positions 300 to 599, sealed by head 2",
        "root",
    ),
    "spaced": (
        lambda log: [*log[:310], log[310].replace(b",", b", "), *log[311:]],
        "An event is not what was sealed",
        "root",
    ),
    "removed": (
        lambda log: log[:310] + log[311:],
        "300 events were sealed, and 299 are here: positions 300 to 599, sealed by head 2",
        "root",
    ),
    "doubled": (
        lambda log: log[:310] + log[309:],
        "300 events were sealed, and 301 are here: positions 300 to 599, sealed by head 2",
        "root",
    ),
    "swapped": (swapped, "An event is not what was sealed, or not in its place: positions 300 to 599", "root"),
    "a head taken out": (lambda log: log[:601] + log[602:], "Line 902: head 3 does not follow the last one", "chain"),
    "a head signed by another": (
        lambda log: with_head(log, 601, signed_anew),
        "Line 602: the head is not genuine",
        "signature",
    ),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_what_was_done_to_an_export_is_located(kind: str, log: Lines) -> None:
    tamper, finding, outside = TAMPERING[kind]

    report = exported.check(tamper(log), VERIFIER)

    assert report.findings[0].startswith(finding)
    assert outsider.verify(b"".join(tamper(log)), SIGNER.public()) == outside


@pytest.mark.parametrize(
    ("line", "change", "finding"),
    [
        (310, {"at": "2026-13-01T00:00:00.000000Z"}, "Event 310 says 2026-13-01T00:00:00.000000Z, which is no time"),
        (310, {"at": "2026-01-01T00:00:00"}, "Event 310 says 2026-01-01T00:00:00, which is no time"),
        (310, {"at": 5}, "Line 311: the event's id and xid are no integers, or its time is no text."),
        (310, {"id": "x"}, "Line 311: the event's id and xid are no integers"),
        (310, {"xid": None}, "Line 311: the event's id and xid are no integers"),
        (904, {"xid": [1]}, "Line 905: the event's id and xid are no integers"),
        (601, {"kid": 5}, "Line 602: the head is not genuine: This is no signed head"),
        (601, {"statement": 5}, "Line 602: the head is not genuine: This is no signed head"),
    ],
)
def test_what_no_log_could_hold_is_found_in_its_line(
    line: int, change: dict[str, object], finding: str, log: Lines
) -> None:
    value = json.loads(log[line])
    number = str(value.get("id"))
    log[line] = json.dumps(value | change).encode() + b"\n"

    report = exported.check(log, VERIFIER)

    assert any(said.startswith(finding.replace("Event 310", f"Event {number}")) for said in report.findings)


def test_an_export_ends_where_its_heads_go_back(log: Lines, sealer_pool: ledger.Pool, database: Database) -> None:
    with as_attacker(database.owner) as conn:
        conn.execute(
            "UPDATE audit_heads SET statement = first.statement FROM audit_heads AS first"
            " WHERE first.number = 1 AND audit_heads.number = 3"
        )

    with pytest.raises(NotGenuine, match="Head 1 of the audit log stands after head 2"):
        lines(sealer_pool)


def test_an_export_that_ends_earlier_is_shown_by_a_head_that_was_kept(log: Lines, sealer_pool: ledger.Pool) -> None:
    with ledger.transaction(sealer_pool) as conn:
        kept = seals.heads(conn, limit=10)
    newest = exported.check(log, VERIFIER).newest
    assert newest is not None
    receipt = Named(newest.number, newest.size, newest.root)

    whole = exported.check(log, VERIFIER, anchored=[*kept, receipt])
    cut = exported.check(log[:602], VERIFIER, anchored=[*kept, receipt])

    assert (whole.findings, whole.anchored) == ([], 4)
    assert [finding.split(" (")[0] for finding in cut.findings] == ["Head 3"] * 2
    assert exported.check(log[:602], VERIFIER).findings == []


def test_an_event_put_in_at_an_older_place_shows_in_an_export(
    log: Lines, sealer_pool: ledger.Pool, database: Database
) -> None:
    with as_attacker(database.owner) as conn:
        row = conn.execute(
            """
            INSERT INTO audit_events (xid, at, actor, action)
            SELECT xid, at, 'mallory', 'vote.cast' FROM audit_events ORDER BY xid, id LIMIT 1
            RETURNING id
            """
        ).fetchone()
    assert row is not None

    [finding] = exported.check(lines(sealer_pool), VERIFIER).findings

    assert finding.startswith(f"Event {row[0]} (mallory vote.cast at ")


def test_an_event_that_is_gone_is_missed_in_an_export(log: Lines, sealer_pool: ledger.Pool, database: Database) -> None:
    number = ids_of(sealer_pool)[310]
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_events WHERE id = %s", (number,))

    [finding] = exported.check(lines(sealer_pool), VERIFIER).findings

    assert finding.startswith("300 events were sealed, and 299 are here: positions 300 to 599")


def test_a_revoked_keys_heads_hold_no_more_and_other_text_is_no_export(log: Lines) -> None:
    revoked = SIGNER.public().replace("current", "revoked")

    assert "revoked" in exported.check(log, Verifier.read(revoked)).findings[0]
    assert outsider.verify(b"".join(log), revoked) == "revoked"
    for line in (b"hello\n", b"[]\n", b'{"id": 1}\n', b"[" * 200_000):
        with pytest.raises(ConfigurationError, match="Line 1 is neither"):
            exported.check([line], VERIFIER)
