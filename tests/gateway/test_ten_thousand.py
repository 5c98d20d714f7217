"""The inbox answers at once, however much waits."""

from __future__ import annotations

import html
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import psycopg
import pytest

from banksman import ids, ledger
from banksman.ledger import audit, inbox, staff
from tests.conftest import Database
from tests.gateway import crowd
from tests.gateway.browser import Browser
from tests.gateway.scenes import Site

OPEN = 10_000
VOTED = 200
PROMISED = 0.3
"""Seconds in which a page of the inbox is answered."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="It reads /proc.")


def test_every_queue_every_search_and_every_page_is_answered_at_once(
    site: Site, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with ledger.transaction(site.gateway) as conn:
        staff.upsert(conn, site.ana.email, name="Ana", groups=("finance",))
    asked = crowd.gather(site, OPEN + VOTED)
    crowd.decide(site, asked[:VOTED])
    with psycopg.connect(database.owner, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")  # as autovacuum does within a minute
    browser = Browser(site)
    browser.sign_in(site.ana)
    paths = [f"/?queue={queue}" for queue in get_args(inbox.Queue)]
    paths += [f"/?queue={queue}&q=refund&tier=low" for queue in ("mine", "others")]
    paths += ["/?tier=high", "/?q=no-such-thing", "/?queue=others&q=no-such-thing", "/groups"]
    paths += [f"/?q={ids.show('req', asked[-1])}", _far_down(browser)]

    with psycopg.connect(database.owner) as conn:
        servers = [
            row[0] for row in conn.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'banksman_gateway'")
        ]
    taken = {path: _work(servers, lambda path=path: browser.get(path)) for path in paths}
    taken["news for an open inbox"] = _work(servers, lambda: _news(site))

    with capsys.disabled():
        for path, seconds in taken.items():
            print(f"{seconds * 1000:7.1f} ms  {path[:60]}")  # noqa: T201
    assert max(taken.values()) < PROMISED, taken


def _work(servers: Sequence[int], call: Callable[[], object], times: int = 5) -> float:
    """Seconds of processor time for a call, here and in PostgreSQL: what an idle machine would take for it."""
    call()
    before = _used(servers)
    for _ in range(times):
        call()
    return (_used(servers) - before) / times


def _used(servers: Sequence[int]) -> float:
    ticks = 0
    for pid in servers:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _news(site: Site) -> object:
    with ledger.transaction(site.gateway) as conn:
        return audit.since(conn, audit.horizon(conn), requests=True)


def _far_down(browser: Browser, pages: int = 20) -> str:
    """The address of a page far down, reached by its links."""
    path = "/"
    for _ in range(pages):
        page = browser.get(path).text
        path = html.unescape(page.partition('<a class="button" href="')[2].partition('"')[0])
    return path
