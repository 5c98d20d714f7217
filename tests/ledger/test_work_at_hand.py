"""How much there is for workers to do, as an autoscaler asks, and that it may ask nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from banksman import ids, ledger
from banksman.ids import RunId
from banksman.ledger import agents, migrate, runs
from banksman.records import NewRun, Person
from tests.conftest import PASSWORDS, Database

HOUR = timedelta(hours=1)
PAST = timedelta(seconds=-1)


@pytest.fixture(autouse=True)
def announced(worker_pool: ledger.Pool) -> None:
    with ledger.transaction(worker_pool) as conn:
        agents.announce(conn, {"refunds": ("1", {}), "plain": ("1", {})})


def a_run(pool: ledger.Pool, agent: str = "plain", *, hint: timedelta = PAST) -> RunId:
    run_id = RunId(ids.new())
    with ledger.transaction(pool) as conn:
        runs.create(conn, NewRun(run_id, agent, "Do it.", "somebody@example.org"), hint=hint)
    return run_id


def work(pool: ledger.Pool) -> int:
    with ledger.transaction(pool) as conn:
        row = conn.execute("SELECT work_at_hand()").fetchone()
    assert row is not None
    return row[0]


def test_what_is_due_what_is_sent_and_what_runs_is_work(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    assert work(gateway_pool) == 0
    a_run(gateway_pool)
    a_run(gateway_pool, hint=HOUR)  # its wake-up is out
    running = a_run(gateway_pool)
    with ledger.transaction(worker_pool) as conn:
        assert runs.claim(conn, running, 0, owner="w", lease=HOUR) is not None

    assert work(gateway_pool) == 3


def test_what_waits_for_people_is_over_or_is_put_off_is_no_work(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    parked, over, put_off, cancelled = (a_run(gateway_pool) for _ in range(4))
    with ledger.transaction(worker_pool) as conn:
        claims = [runs.claim(conn, run_id, 0, owner="w", lease=HOUR) for run_id in (parked, over, put_off)]
        fences = [claim.fence for claim in claims if claim is not None]
        assert runs.park(conn, parked, fences[0], version="1", usage={})
        assert runs.finish(conn, over, fences[1], output="done", version="1", usage={})
        assert runs.postpone(conn, put_off, fences[2], error="not now", delay=HOUR, counted=True)
    with ledger.transaction(gateway_pool) as conn:
        runs.cancel(conn, [cancelled])

    assert work(gateway_pool) == 0


def test_what_an_operator_holds_is_no_work_but_for_what_runs(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    running, _ = a_run(gateway_pool, "refunds"), a_run(gateway_pool, "refunds")
    with ledger.transaction(worker_pool) as conn:
        assert runs.claim(conn, running, 0, owner="w", lease=HOUR) is not None
    with ledger.transaction(gateway_pool) as conn:
        assert agents.pause(conn, "refunds", reviewers[0].id)

    assert work(gateway_pool) == 1


@pytest.fixture
def scaler(database: Database) -> Iterator[str]:
    """The URL of an autoscaler, let in by a migration."""
    migrate.migrate(database.owner, passwords={**PASSWORDS, migrate.SCALER: "scaler-secret"})
    url = urlsplit(database.owner)
    netloc = f"{migrate.SCALER}:scaler-secret@{url.hostname}:{url.port}"
    yield urlunsplit(url._replace(netloc=netloc))
    with psycopg.connect(database.owner, autocommit=True) as conn:
        conn.execute("REVOKE ALL ON FUNCTION work_at_hand() FROM banksman_scaler")


def test_an_autoscaler_asks_how_much_there_is_and_sees_nothing_else(gateway_pool: ledger.Pool, scaler: str) -> None:
    a_run(gateway_pool)

    with psycopg.connect(scaler, autocommit=True) as conn:
        assert conn.execute("SELECT work_at_hand()").fetchone() == (1,)
        readable = conn.execute(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
              AND has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE')
            """
        ).fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT count(*) FROM runs")

    assert readable == []


@pytest.mark.parametrize("role", ["worker", "notifier", "sealer"])
def test_the_other_services_do_not_ask(database: Database, role: str) -> None:
    with (
        psycopg.connect(getattr(database, role)) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="work_at_hand"),
    ):
        conn.execute("SELECT work_at_hand()")


def test_a_lot_counts_no_further_than_an_autoscaler_goes(gateway_pool: ledger.Pool) -> None:
    """More would cost more to count and change nothing: so many want every worker that there is."""
    with ledger.transaction(gateway_pool) as conn:
        conn.execute(
            """
            INSERT INTO runs (id, agent, requester, prompt, metadata, due_at, dispatched, turn)
            SELECT gen_random_uuid(), 'plain', 'x', '', '', clock_timestamp(), false, 0 FROM generate_series(1, 10050)
            """
        )

    assert work(gateway_pool) == 10_000
