"""Everything that is stored comes under another key, while it is written to, and changes in nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from banksman import ids, ledger, signing, vault
from banksman.ids import RunId
from banksman.ledger import requests, resealing, runs
from banksman.records import NewRun
from tests.conftest import VAULT_KEYS, Database
from tests.gateway.scenes import asking, bound

NEW = f"v2:{signing.base64url(bytes([8] * 32))}"
# Hashes, signatures and marks: of secrets, of what is sealed, or over it.
CLEAR = {
    *("keys.secret_hash", "sessions.id_hash", "sign_ins.asker", "answers.fingerprint", "blobs.hash", "schemas.hash"),
    *("requests.shape", "requests.schema_hash", "revisions.digest", "votes.digest", "votes.render_hash"),
    *("audit_leaves.hash", "audit_nodes.hash", "audit_heads.statement", "audit_heads.signature"),
    *("decisions.signature", "renewals.signature", "policies.signature", "grants.signature", "executions.digest"),
}


def a_run(pool: ledger.Pool, prompt: str = "Do it.") -> RunId:
    run_id = RunId(ids.new())
    with ledger.transaction(pool) as conn:
        runs.create(conn, NewRun(run_id, "plain", prompt, "x@example.org"), hint=timedelta(0))
    return run_id


def reseal(pool: ledger.Pool, *, limit: int = 2) -> int:
    done = 0
    for column in resealing.SEALED:
        after, more = None, True
        while more:
            with ledger.transaction(pool) as conn:
                after, part, refused = resealing.step(conn, column, "v2", after, limit=limit)
            assert refused == []
            done, more = done + part, after is not None
    return done


def test_every_column_of_bytes_is_sealed_or_known_to_hold_no_content(database: Database) -> None:
    with psycopg.connect(database.owner) as conn:
        found = conn.execute(
            """
            SELECT table_name || '.' || column_name
            FROM information_schema.columns
            JOIN information_schema.tables USING (table_schema, table_name)
            WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type = 'bytea'
            """
        ).fetchall()

    assert {name for (name,) in found} == CLEAR | {column.title for column in resealing.SEALED}


def test_values_come_under_the_new_key_whatever_they_were_sealed_with(
    owner_pool: ledger.Pool, gateway_pool: ledger.Pool
) -> None:
    under_old = [a_run(gateway_pool, f"task {number}") for number in range(5)]
    vault.use("")
    plain = a_run(gateway_pool, "from before")
    vault.use(f"{NEW},{VAULT_KEYS},plain")
    under_new = a_run(gateway_pool, "later")

    with ledger.transaction(owner_pool) as conn:
        before = resealing.under(conn, "v1"), resealing.under(conn, None), resealing.waiting(conn, "v2")
    done = reseal(owner_pool)
    with ledger.transaction(owner_pool) as conn:
        after = resealing.under(conn, "v1"), resealing.under(conn, None), resealing.waiting(conn, "v2")

    assert before == (
        {"runs.prompt": 5, "runs.metadata": 5},
        {"runs.prompt": 1, "runs.metadata": 1},
        {"runs.prompt": 6, "runs.metadata": 6},
    )
    assert done == 12
    assert after == ({}, {}, {})
    assert reseal(owner_pool) == 0
    vault.use(NEW)
    with ledger.transaction(gateway_pool) as conn:
        prompts = [runs.get(conn, run_id).prompt for run_id in [*under_old, plain, under_new]]
    assert prompts == [*(f"task {number}" for number in range(5)), "from before", "later"]


def test_the_context_of_an_open_request_comes_under_the_new_key(
    owner_pool: ledger.Pool, gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    run_id = a_run(gateway_pool)
    new = replace(bound(asking(), run_id, []), context=b'{"said": "Because."}')
    with ledger.transaction(worker_pool) as conn:
        assert runs.claim(conn, run_id, 0, owner="w", lease=timedelta(minutes=1)) is not None
        requests.open_request(conn, run_id, 0, new)
    vault.use(f"{NEW},{VAULT_KEYS}")

    reseal(owner_pool)

    vault.use(NEW)
    with ledger.transaction(gateway_pool) as conn:
        request = requests.get(conn, new.id)
    assert (request.state.value, request.context) == ("open", new.context)


def test_a_value_that_changes_meanwhile_is_left_as_it_became(
    owner_pool: ledger.Pool, gateway_pool: ledger.Pool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = a_run(gateway_pool)
    vault.use("")
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET error = %s", (vault.seal(b"at first", ("runs.error", run_id)),))
    vault.use(f"{NEW},{VAULT_KEYS},plain")
    real = vault.seal

    def somebody_writes_first(body: bytes, row: vault.Row) -> bytes:
        with psycopg.connect(database.owner) as conn:
            conn.execute("UPDATE runs SET error = %s", (b"\x00at first, and more",))
        return real(body, row)

    monkeypatch.setattr(vault, "seal", somebody_writes_first)
    reseal(owner_pool)

    with ledger.transaction(gateway_pool) as conn:
        assert runs.get(conn, run_id).error == "at first, and more"
