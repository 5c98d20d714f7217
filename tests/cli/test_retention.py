"""`banksman purge` and `banksman erase` as whoever runs the installation uses them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from banksman import ids, ledger
from banksman.ids import RunId
from banksman.ledger import runs
from banksman.records import NewRun
from tests.cli.conftest import run
from tests.conftest import VAULT_KEYS, Database

HOUR = timedelta(hours=1)


def ended(database: Database, *, days: int) -> RunId:
    """A run that was submitted, and came to its end, so many days ago."""
    born = ids.first_of(datetime.now(UTC) - timedelta(days=days))
    run_id = RunId(UUID(int=born.int | ids.new().int & (1 << 64) - 1))
    with ledger.once(database.owner, name="test") as conn:
        runs.create(conn, NewRun(run_id, "plain", "Do it.", "x@example.org"), hint=HOUR)
        claim = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)
        assert claim is not None
        assert runs.finish(conn, run_id, claim.fence, output="done", version="1", usage={})
        conn.execute("UPDATE runs SET finished_at = now() - %s WHERE id = %s", (timedelta(days=days), run_id))
    return run_id


def left(database: Database) -> set[UUID]:
    with psycopg.connect(database.owner) as conn:
        return {row[0] for row in conn.execute("SELECT id FROM runs")}


@pytest.mark.parametrize("who", ["owner", "keeper"])
def test_runs_that_ended_long_ago_are_counted_then_removed(who: str, database: Database, tmp_path: Path) -> None:
    env = {"BANKSMAN_DATABASE_URL": getattr(database, who)}
    old = {ended(database, days=100 + number) for number in range(3)}
    young = ended(database, days=80)

    dry = run("purge", "--older-than", "90d", "--dry-run", cwd=tmp_path, env=env)
    after_dry = left(database)
    done = run("purge", "--older-than", "90d", "--at-once", "2", cwd=tmp_path, env=env)
    again = run("purge", "--older-than", "90d", "--json", cwd=tmp_path, env=env)
    refused = [run("purge", "--older-than", age, cwd=tmp_path, env=env).returncode for age in ("1h", "soon")]

    assert (dry.returncode, done.returncode, again.returncode) == (0, 0, 0), done.stderr
    assert "3 finished" in dry.stdout
    assert "Nothing was changed." in dry.stdout
    assert after_dry == old | {young}
    assert "Removed: 3 runs, 0 batches, 0 messages." in done.stdout
    assert left(database) == {young}
    assert json.loads(again.stdout)["runs"] == 0
    assert refused == [2, 2]


def test_a_run_is_erased_by_whoever_confirms_it_and_may(database: Database, tmp_path: Path) -> None:
    env = {"BANKSMAN_DATABASE_URL": database.owner, "BANKSMAN_VAULT_KEYS": VAULT_KEYS}
    run_id = ended(database, days=1)
    shown = ids.show("run", run_id)

    unconfirmed = run("erase", shown, cwd=tmp_path, env=env)
    by_a_service = run("erase", shown, "--yes", cwd=tmp_path, env=env | {"BANKSMAN_DATABASE_URL": database.gateway})
    unknown = run("erase", ids.show("run", ids.new()), "--yes", cwd=tmp_path, env=env)
    with ledger.once(database.owner, name="test") as conn:
        before = runs.get(conn, run_id)
    done = run("erase", shown, "--yes", cwd=tmp_path, env=env)

    assert (unconfirmed.returncode, by_a_service.returncode, unknown.returncode) == (2, 2, 4)
    assert "banksman_gateway may not act as banksman_keeper" in by_a_service.stderr
    assert (before.prompt, before.erased_at) == ("Do it.", None)
    assert done.returncode == 0, done.stderr
    assert f"The content of {shown} is gone." in done.stdout
    with ledger.once(database.owner, name="test") as conn:
        after = runs.get(conn, run_id)
    assert (after.prompt, after.output, after.status.value, after.created_at) == (
        ("", None, "finished", before.created_at)
    )
    assert after.erased_at is not None
