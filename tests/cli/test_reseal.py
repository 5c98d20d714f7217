"""`keys rotate vault`, `reseal` and `retire`, from a first key to a second one, with a run coming in between."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from banksman import ids, ledger, vault
from banksman.embedded import keyring
from banksman.ids import RunId
from banksman.ledger import runs
from banksman.records import NewRun
from tests.cli.conftest import run
from tests.conftest import Database


def a_run(database: Database, prompt: str) -> RunId:
    run_id = RunId(ids.new())
    with ledger.once(database.owner, name="test") as conn:
        runs.create(conn, NewRun(run_id, "plain", prompt, "x@example.org"), hint=timedelta(0))
    return run_id


def test_a_key_is_given_up_only_once_nothing_is_sealed_with_it(database: Database, tmp_path: Path) -> None:
    (tmp_path / ".banksman").mkdir()
    secrets = tmp_path / ".banksman" / "secrets.json"
    first = keyring.load_or_make(secrets, data_exists=False).vault_keys
    old = first.partition(":")[0]
    vault.use(first)
    before = a_run(database, "before")

    made = run("keys", "rotate", "vault", cwd=tmp_path)
    both = keyring.load_or_make(secrets, data_exists=True).vault_keys
    env = {"BANKSMAN_DATABASE_URL": database.owner, "BANKSMAN_VAULT_KEYS": both}
    early = run("keys", "retire", old, cwd=tmp_path, env=env)
    done = run("keys", "reseal", "--json", cwd=tmp_path, env=env)
    retired = run("keys", "retire", old, cwd=tmp_path, env=env)

    assert made.returncode == 0
    assert "keys reseal" in made.stderr
    assert early.returncode == 3
    assert "1 of runs.prompt" in early.stderr
    assert json.loads(done.stdout) == {"key": both.partition(":")[0], "resealed": 2, "left": {}, "refused": []}
    assert retired.returncode == 0
    last = keyring.load_or_make(secrets, data_exists=True).vault_keys
    assert last == both.partition(",")[0]
    vault.use(last)
    with ledger.once(database.owner, name="test") as conn:
        assert runs.get(conn, before).prompt == "before"
        told = conn.execute("SELECT body FROM audit_events WHERE action = 'vault.resealed'").fetchall()
    assert [row[0] for row in told] == [{"key": both.partition(":")[0], "values": 2, "left": 0}]


def test_a_stack_that_does_not_know_the_key_yet_is_not_resealed(database: Database, tmp_path: Path) -> None:
    (tmp_path / ".banksman").mkdir()
    keyring.load_or_make(tmp_path / ".banksman" / "secrets.json", data_exists=False)
    stack = {"database_url": database.owner, "vault_key": "v000000"}
    (tmp_path / ".banksman" / "stack.json").write_text(json.dumps(stack))

    refused = run("keys", "reseal", cwd=tmp_path)

    assert refused.returncode == 3
    assert "start it again" in refused.stderr
