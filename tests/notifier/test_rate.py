"""Ten thousand notices: how fast one process sends them singly, and how few mails they are when they are gathered."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest

from banksman import ids, ledger
from banksman.embedded import ports
from banksman.ids import NoticeId
from banksman.records import Person
from banksman_notifier import gathering
from banksman_notifier.channels import email
from banksman_notifier.deliver import Office, deliver
from banksman_notifier.gateway import Link
from banksman_notifier.gathering import Windows
from tests.notifier.conftest import HOME, SENDER, AskFor
from tests.notifier.test_gathering import pass_time, run_of

MANY, THREADS = 10_000, 8


class Minting:
    """A gateway that answers at once: what it costs there is no part of the notifier's rate."""

    def links(self, notice_ids: Sequence[NoticeId]) -> Mapping[NoticeId, Link]:
        return {one: Link(f"{HOME}/l/bk1.k1.{one.hex}", "123456", f"{HOME}/requests/{one.hex}") for one in notice_ids}

    def home(self) -> str:
        return HOME


@pytest.fixture
def server() -> Iterator[email.Server]:
    """A mail server in a process of its own, which takes everything and keeps nothing."""
    port = ports.free()
    arguments = ("-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", f"{ports.LOOPBACK}:{port}")
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((ports.LOOPBACK, port), 0.2):
            break
        time.sleep(0.05)
    yield email.Server(ports.LOOPBACK, port, tls=False)
    process.kill()
    process.wait()


def many(asked: AskFor, pool: ledger.Pool, tell: Person) -> None:
    """A batch's run with ten thousand open requests: the first by real moves, the others like it."""
    [first] = asked(tell=[tell])
    run = run_of(pool, first)
    names = [ids.new() for _ in range(MANY - 1)]
    with ledger.transaction(pool) as conn:
        batch = ids.new()
        conn.execute("INSERT INTO batches (id, name, requester) VALUES (%s, 'nightly', 'key nightly')", (batch,))
        conn.execute("UPDATE runs SET batch_id = %s", (batch,))
        columns = ", ".join(
            row[0]
            for row in conn.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'requests'"
                " AND table_schema = 'public' AND column_name NOT IN ('id', 'call_id') ORDER BY 1"
            )
        )
        conn.execute(
            f"INSERT INTO requests (id, call_id, {columns})"
            f" SELECT name, name::text, {columns} FROM requests, unnest(%s::uuid[]) AS name WHERE run_id = %s",
            (names, run),
        )
        conn.execute(
            "INSERT INTO revisions (request_id, revision, action, digest)"
            " SELECT name, revision, action, digest FROM revisions, unnest(%s::uuid[]) AS name WHERE revision = 1",
            (names,),
        )
        conn.execute(
            "INSERT INTO notices (id, kind, person_id, request_id, revision, due_at, expires_at)"
            " SELECT gen_random_uuid(), kind, person_id, name, 1, due_at, expires_at"
            " FROM notices, unnest(%s::uuid[]) AS name WHERE notices.id = %s",
            (names, first),
        )
        conn.execute("ANALYZE")


def drained(office: Office) -> float:
    """Seconds until nothing is due, with as many threads as the process has."""

    def work(_: int) -> None:
        while deliver(office):
            pass

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    return time.perf_counter() - began


def sent(pool: ledger.Pool) -> tuple[int, int]:
    """Notices that were sent, and messages that they were sent in."""
    with ledger.transaction(pool) as conn:
        row = conn.execute("SELECT count(sent_at), count(DISTINCT sent_at) FROM notices").fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("way", ["singly", "gathered"])
def test_ten_thousand_notices_are_drained(
    way: str,
    asked: AskFor,
    office: Office,
    server: email.Server,
    owner_pool: ledger.Pool,
    reviewers: tuple[Person, Person],
    capsys: pytest.CaptureFixture[str],
) -> None:
    many(asked, owner_pool, reviewers[0])
    windows = Windows(timedelta(), timedelta()) if way == "singly" else Windows()
    plain = replace(office, gateway=cast("Any", Minting()), channels={"email": partial(email.opened, server, SENDER)})
    used = time.process_time()

    took = drained(replace(plain, sort=partial(gathering.sort, plain, windows)))
    if way == "gathered":
        pass_time(owner_pool, timedelta(minutes=10))
        took += drained(replace(plain, sort=partial(gathering.sort, plain, windows)))

    used = time.process_time() - used
    notices, messages = sent(owner_pool)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{notices:,} notices {way} in {took:.1f} s: {notices / took:,.0f} a second in one process of {THREADS} "
            f"threads, {1000 * used / notices:.2f} ms of CPU each, {messages:,} mails\n"
        )
    assert notices == MANY
    # Two threads may record within one microsecond.
    assert messages > 0.99 * MANY if way == "singly" else messages <= 2
