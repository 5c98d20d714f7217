"""Heads kept elsewhere: a file, a syslog over real sockets, the receipts that people have."""

from __future__ import annotations

import json
import re
import socket
from email.message import EmailMessage
from pathlib import Path

import pytest

from banksman import ledger
from banksman.errors import ConfigurationError
from banksman.ledger import seals
from banksman.sealing import anchors, check, heads, receipts
from banksman.sealing.receipts import Named
from banksman.signing import Signed
from tests.conftest import Database
from tests.sealing.logs import VERIFIER, as_attacker, roll_back, seal, write

FORM = re.compile(rb"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]+ banksman \d+ head - (\{.*\})")
"""RFC 5424, section 6: facility 13, severity 5, version 1, time, host, application, process, message id, no data."""


@pytest.fixture
def sealed(worker_pool: ledger.Pool, sealer_pool: ledger.Pool) -> list[Signed]:
    """Three heads."""
    for _ in range(3):
        write(worker_pool, 10)
        seal(sealer_pool)
    with ledger.transaction(sealer_pool) as conn:
        return list(seals.heads(conn, limit=10))


@pytest.mark.parametrize("way", ["udp", "udp6", "unix"])
def test_heads_go_to_a_syslog_in_the_form_of_rfc_5424_and_are_read_back(
    way: str, sealed: list[Signed], tmp_path: Path
) -> None:
    family = {"udp": socket.AF_INET, "udp6": socket.AF_INET6, "unix": socket.AF_UNIX}[way]
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        try:
            server.bind(str(tmp_path / "log") if way == "unix" else ({"udp": "127.0.0.1", "udp6": "::1"}[way], 0))
        except OSError:
            pytest.skip("This machine has no IPv6.")
        server.settimeout(30)
        port = "" if way == "unix" else server.getsockname()[1]
        where = {"unix": f"syslog:{tmp_path / 'log'}", "udp": f"syslog://127.0.0.1:{port}"}
        anchor = anchors.of_setting(where.get(way, f"syslog://[::1]:{port}"))
        assert anchor is not None
        anchor.put(sealed)
        heard = [server.recv(65536) for _ in sealed]

    for message in heard:
        found = FORM.fullmatch(message)
        assert found is not None, message
        assert json.loads(found[1]).keys() == {"statement", "signature", "kid"}
    log = tmp_path / "syslog"
    strange = b"Nov 23 04:00:00 host other[7]: {not ours}\nNov 23 04:00:00 host \xff\n"
    log.write_bytes(strange + b"".join(b"Nov 23 04:00:01 host " + line + b"\n" for line in heard))
    assert list(anchors.read(log)) == sealed
    assert anchor.last() == sealed[-1]


def test_a_log_that_was_rolled_back_is_shown_by_a_syslog_and_by_a_receipt(
    sealed: list[Signed], sealer_pool: ledger.Pool, database: Database
) -> None:
    head = heads.verify(VERIFIER, sealed[2])
    named = Named(head.number, head.size, head.root)
    with ledger.transaction(sealer_pool) as conn:
        whole = check.check(conn, VERIFIER, anchored=[*sealed, named])
    with as_attacker(database.owner) as conn:
        roll_back(conn, heads=2)

    with ledger.transaction(sealer_pool) as conn:
        without = check.check(conn, VERIFIER)
        by_syslog = check.check(conn, VERIFIER, anchored=sealed)
        by_receipt = check.check(conn, VERIFIER, anchored=[named])
        other = check.check(conn, VERIFIER, anchored=[Named(2, 20, b"\x00" * 32)])

    assert (whole.findings, whole.anchored) == ([], 4)
    assert without.findings == []
    assert by_syslog.findings[0].startswith("Head 3 (30 events at ")
    assert by_receipt.findings[0].startswith(f"Head 3 (30 events, root {head.root.hex()}) was anchored and is gone")
    assert other.findings[0].startswith("Head 2 is not the one that was anchored")


ROOT = "ab" * 32


def a_mail() -> bytes:
    mail = EmailMessage()
    mail["Subject"] = "Your votes"
    mail["From"] = mail["To"] = "ana@example.org"
    mail.set_content(
        f"You voted once.\n\nThe audit log's newest head: number 7, 42 events, root {ROOT}\n", cte="base64"
    )
    return mail.as_bytes()


@pytest.mark.parametrize(
    "text",
    [
        a_mail(),
        f"> The audit log's newest head: number 7, 42\n events, root\n {ROOT}".encode(),
        f"<p>newest head: number 7, 42 events, root <code>{ROOT}</code>.</p>".encode(),
        json.dumps({"a": {"audit_head": {"number": 7, "size": 42, "root": ROOT, "at": "x"}}}, indent=1).encode(),
    ],
    ids=["mail", "text", "page", "answer"],
)
def test_a_receipt_is_read_as_people_keep_it(text: bytes, tmp_path: Path) -> None:
    kept = tmp_path / "receipt"
    kept.write_bytes(text)

    assert receipts.read(kept) == [Named(7, 42, bytes.fromhex(ROOT))]


@pytest.mark.parametrize("charset", ["x-nobody-knows", "hex", "utf-8"])
def test_a_mail_in_any_character_set_is_read(charset: str, tmp_path: Path) -> None:
    kept = tmp_path / "receipt"
    kept.write_bytes(a_mail().replace(b"utf-8", charset.encode()))

    assert charset.encode() in kept.read_bytes()
    assert receipts.read(kept) == [Named(7, 42, bytes.fromhex(ROOT))]


@pytest.mark.parametrize("end", [b'{"statement": "x", "sig', b'{"statement": "\xc3', b"null\n", b""])
def test_a_last_line_that_was_cut_short_is_named_with_what_to_do(
    end: bytes, sealed: list[Signed], tmp_path: Path
) -> None:
    kept = tmp_path / "heads.jsonl"
    anchor = anchors.File(kept)
    anchor.put(sealed)
    whole = kept.read_bytes()
    assert anchor.last() == sealed[-1]
    kept.write_bytes(whole + end if end else whole[:-1])

    with pytest.raises(ConfigurationError, match=re.escape(f"{kept}: the last line is no") + ".*Remove its last line"):
        anchor.last()

    kept.write_bytes(b"".join(kept.read_bytes().splitlines(keepends=True)[:-1]))
    assert anchor.last() == sealed[-1 if end else -2]


def test_what_holds_no_head_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for text in ("", "hello", "Nov 23 04:00:00 host other: {}\n"):
        kept.write_text(text)
        with pytest.raises(ConfigurationError, match="names no head"):
            receipts.read(kept)
        with pytest.raises(ConfigurationError, match="no signed head"):
            list(anchors.read(kept))
    for text in ("{nonsense", '{"items": 5}', '{"items": [{"kid": 5}]}', '{"a":' + "[" * 200_000):
        kept.write_text(text)
        with pytest.raises(ConfigurationError, match="no signed head"):
            list(anchors.read(kept))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        receipts.read(tmp_path / "nowhere")
