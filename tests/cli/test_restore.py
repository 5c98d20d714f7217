"""`banksman restore-check` as whoever owns the database runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest

from banksman import ids, ledger
from banksman.ids import RunId
from banksman.ledger import keys, runs, staff
from banksman.records import NewRun
from tests.cli.conftest import run
from tests.conftest import VAULT_KEYS, Database

Check = Callable[..., CompletedProcess[str]]


@pytest.fixture
def check(database: Database, tmp_path: Path) -> Check:
    env = {"BANKSMAN_DATABASE_URL": database.owner, "BANKSMAN_VAULT_KEYS": VAULT_KEYS}
    return lambda *arguments: run("restore-check", *arguments, cwd=tmp_path, env=env)


def a_run(database: Database, *, lease: timedelta | None = None) -> RunId:
    run_id = RunId(ids.new())
    with ledger.once(database.owner, name="test") as conn:
        runs.create(conn, NewRun(run_id, "plain", "Do it.", "x@example.org"), hint=timedelta(0))
        if lease is not None:
            assert runs.claim(conn, run_id, 0, owner="w", lease=lease)
    return run_id


def state(database: Database, run_id: RunId) -> tuple[str, str | None]:
    with ledger.once(database.owner, name="test") as conn:
        found = runs.get(conn, run_id)
    return found.status.value, found.error


def test_it_says_what_it_would_do_does_it_once_and_then_has_nothing_to_do(check: Check, database: Database) -> None:
    queued, held = a_run(database), a_run(database, lease=timedelta(seconds=-1))
    with ledger.once(database.owner, name="test") as conn:
        person = staff.upsert(conn, "ana@example.org", name="Ana")
        keys.open_session(conn, b"hash", person.id, lifetime=timedelta(hours=1))
        for number, moment in ((1, "2026-01-01 03:04Z"), (2, "2026-01-02 03:04Z")):
            conn.execute(
                "INSERT INTO policies VALUES (%s, %s, %s, %s, %s, %s)", (number, b"", b"", "k", person.id, moment)
            )

    dry = check()
    unchanged = state(database, queued)
    done = check("--yes")
    again = check("--json")

    assert dry.returncode == 1
    assert "Runs that may have acted since the restored moment: 1 queued, 1 running." in dry.stdout
    assert "reviewers list" in dry.stdout
    assert "Standing grants that would be revoked: 0." in dry.stdout
    assert "version 2, of 2026-01-02 03:04 UTC, is in force" in dry.stdout
    assert "Nothing was changed." in dry.stdout
    assert unchanged == ("queued", None)
    assert done.returncode == 0
    assert "2 runs are stuck" in done.stdout
    assert "1 sessions were ended" in done.stdout
    assert "0 standing grants were revoked" in done.stdout
    for run_id in (queued, held):
        status, error = state(database, run_id)
        assert (status, error is not None and "may have acted since" in error) == ("stuck", True)
    assert again.returncode == 0
    assert json.loads(again.stdout)["marked_before"] == 2
    assert check("--yes").stdout.startswith("0 runs are stuck")
    with psycopg.connect(database.owner) as conn:
        row = conn.execute("SELECT count(*) FROM audit_events WHERE action = 'run.doubted'").fetchone()
    assert row == (2,)


def test_while_a_worker_is_connected_or_holds_a_lease_it_refuses(
    check: Check, database: Database, worker_pool: ledger.Pool
) -> None:
    held = a_run(database, lease=timedelta(minutes=1))
    assert ledger.reachable(worker_pool, within=5)

    connected = check("--yes")
    worker_pool.close()
    leased = check("--yes")

    assert (connected.returncode, leased.returncode) == (3, 3)
    assert "Workers are connected" in connected.stderr
    assert "1 runs are held by workers until" in leased.stderr
    assert state(database, held)[0] == "running"
