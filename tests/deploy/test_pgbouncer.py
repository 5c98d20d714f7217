"""Everything through PgBouncer in transaction mode, where each transaction may meet another server.

PgBouncer comes from the system (on Debian `apt-get install pgbouncer`). Without it these tests are skipped, but not on
continuous integration, where it must be there.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.conftest import PASSWORDS
from tests.journeys.stacks import Stack

from banksman import ledger
from banksman.embedded import account, ports, postgres, service
from banksman.embedded.service import Service
from banksman.ledger import migrate

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SERVERS = 3
"""So many connections to PostgreSQL for each role: fewer than any service has of its own."""

pytestmark = pytest.mark.skipif(
    PGBOUNCER is None and not os.environ.get("CI"), reason="PgBouncer is not installed (apt-get install pgbouncer)"
)


@dataclass(frozen=True)
class Pooled:
    """A PostgreSQL, and a PgBouncer before it."""

    server: postgres.Postgres
    port: int
    log: Path

    def by_way(self, url: str) -> str:
        """The same URL, through PgBouncer."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}"))


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooled]:
    """As docs/deploy.md writes it, with a few servers only."""
    assert PGBOUNCER is not None, "PgBouncer is not installed: continuous integration must have it"
    home = tmp_path_factory.mktemp("pooled")
    with postgres.running(home / "postgres", durable=False) as server:
        port, folder, who = ports.free(), home / "pgbouncer", account.for_servers()
        account.private_folder(folder, who)
        for name, text in {
            "users.txt": f'"{postgres.OWNER}" "{server.password}"\n',
            "pgbouncer.ini": f"""
[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
auth_type = scram-sha-256
auth_file = {who.folder_of(folder)}/users.txt
auth_user = {postgres.OWNER}
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
default_pool_size = {SERVERS}
max_client_conn = 500
idle_transaction_timeout = 15
""",
        }.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
        pooler = Service(
            name="pgbouncer",
            argv=[PGBOUNCER, f"{who.folder_of(folder)}/pgbouncer.ini"],
            env={},
            cwd=folder,
            account=who,
            stop_signal=signal.SIGINT,
        )
        log = home / "pgbouncer.log"
        with service.running(pooler, ready=lambda _: ports.answers(port), log=log, within=30):
            yield Pooled(server, port, log)


def test_a_statement_is_known_to_whichever_server_it_meets(pooled: Pooled) -> None:
    """Without the pool's own care: `prepared statement "_pg3_0" does not exist`, after the fifth time."""
    migrate.migrate(pooled.by_way(pooled.server.url()), passwords=PASSWORDS)
    url = pooled.server.url(user="banksman_worker", password=PASSWORDS["banksman_worker"])
    pool = ledger.open_pool(pooled.by_way(url), size=8, name="test")
    met: set[int] = set()

    def ask(number: int) -> int:
        with ledger.transaction(pool) as conn:
            row = conn.execute("SELECT pg_backend_pid(), %s::integer, pg_sleep(0.002)", (number,)).fetchone()
        assert row is not None
        met.add(row[0])
        return row[1]

    try:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(ask, range(200))) == list(range(200))
    finally:
        pool.close()
    assert 1 < len(met) <= SERVERS


def test_straight_to_postgresql_statements_are_prepared(pooled: Pooled) -> None:
    pool = ledger.open_pool(pooled.server.url(), size=1, name="test")
    try:
        with ledger.transaction(pool) as conn:
            assert conn.prepare_threshold is not None
    finally:
        pool.close()


@pytest.mark.journey
def test_a_run_is_approved_and_sealed_with_every_service_behind_it(pooled: Pooled, tmp_path: Path) -> None:
    url = pooled.by_way(pooled.server.url())
    settings = {"BANKSMAN_DATABASE_URL": url, "BANKSMAN_SEAL_SECONDS": "0.5"}

    with Stack(tmp_path / "data", settings=settings) as stack:
        program, ana = stack.program(), stack.reviewer()
        # Often enough for every statement on the way to be one that psycopg would prepare.
        started = [program.submit("clerk", f"pooled-{number}")["id"] for number in range(7)]
        for run_id in started:
            [request] = ana.asked(run_id, within=60)
            ana.decide(request, "approve")
        outputs = [program.ended(run_id, within=60)["output"] for run_id in started]
        stack.wait_for(lambda: stack.mail.about("append", to="ana@example.org"), what="a mail")
        stack.wait_for(lambda: stack.cli("audit", "verify").returncode == 0, what="the first head")
        by_role = stack.query(
            "SELECT usename, count(*) FROM pg_stat_activity WHERE starts_with(usename, 'banksman_') GROUP BY usename"
        )
        said = stack.said()

    assert outputs == [f"Done: pooled-{number} is in the book" for number in range(7)]
    assert {"banksman_worker", "banksman_gateway", "banksman_notifier", "banksman_sealer"} <= dict(by_role).keys()
    assert max(dict(by_role).values()) <= SERVERS
    assert "prepared statement" not in said
    assert "Traceback" not in said
