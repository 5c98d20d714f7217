"""`banksman audit`: whoever has the database and the public key checks the log without trusting the gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from banksman import files, ids, ledger
from banksman.deployment import write_deployment
from banksman.embedded import keyring
from banksman.sealing import sealer
from banksman.signing import Signer, Verifier
from tests.cli.conftest import run
from tests.conftest import Database
from tests.gateway.scenes import Site
from tests.sealing.logs import SIGNER, as_attacker, roll_back, seal, write

KEYS = SIGNER.public()
Audit = Callable[..., CompletedProcess[str]]


@pytest.fixture
def audit(database: Database, tmp_path: Path) -> Audit:
    env = {"BANKSMAN_DATABASE_URL": database.sealer, "BANKSMAN_SEAL_VERIFY_KEYS": KEYS}
    return lambda *arguments, **more: run("audit", *arguments, cwd=tmp_path, env=more.pop("env", env), **more)


def test_it_is_good_tampered_with_or_unknown(
    audit: Audit, site: Site, database: Database, sealer_pool: ledger.Pool
) -> None:
    site.a_run()
    unsealed = audit("verify")
    seal(sealer_pool)
    good = audit("verify")
    facts = json.loads(audit("verify", "--json").stdout)
    with as_attacker(database.owner) as conn:
        conn.execute("UPDATE audit_events SET actor = 'mallory' WHERE id = (SELECT min(id) FROM audit_events)")
    tampered = audit("verify")
    with as_attacker(database.owner) as conn:
        conn.execute("DELETE FROM audit_heads")
    headless = audit("verify")
    keyless = audit("verify", env={"BANKSMAN_DATABASE_URL": database.sealer})
    nowhere = audit(
        "verify", env={"BANKSMAN_DATABASE_URL": "postgresql://x:x@127.0.0.1:1/x", "BANKSMAN_SEAL_VERIFY_KEYS": KEYS}
    )

    assert unsealed.returncode == 2
    assert good.returncode == 0, good.stdout + good.stderr
    assert "The log says what was sealed." in good.stdout
    assert (facts["good"], facts["findings"], facts["heads"]) == (True, [], 1)
    assert tampered.returncode == 1
    assert "is not what was sealed (position 0, head 1): mallory" in tampered.stdout
    assert headless.returncode == 1
    assert "stand under no head" in headless.stdout
    assert (keyless.returncode, nowhere.returncode) == (2, 2)


def test_a_rolled_back_head_is_shown_by_kept_heads(
    audit: Audit, site: Site, database: Database, tmp_path: Path, sealer_pool: ledger.Pool
) -> None:
    for _ in range(3):
        site.a_run()
        seal(sealer_pool)
    kept = tmp_path / "heads.jsonl"
    kept.write_text(audit("heads").stdout)
    assert len(kept.read_text().splitlines()) == 3
    whole = audit("verify", "--anchor", str(kept), "--heads", str(kept))
    with as_attacker(database.owner) as conn:
        roll_back(conn, heads=2)

    without, against = audit("verify"), audit("verify", "--heads", str(kept))

    assert whole.returncode == 0, whole.stdout
    assert without.returncode == 0
    assert "Checked against no anchor" in without.stdout
    assert against.returncode == 1
    assert "rolled back" in against.stdout
    kept.write_text("nonsense {")
    assert audit("verify", "--anchor", str(kept)).returncode == 2
    with as_attacker(database.owner) as conn:
        conn.execute(
            "UPDATE audit_heads SET statement = first.statement FROM audit_heads AS first"
            " WHERE first.number = 1 AND audit_heads.number = 2"
        )
    back = audit("heads")
    assert (back.returncode, len(back.stdout.splitlines())) == (3, 1)
    assert "Head 1 of the audit log stands after head 1" in back.stderr


def test_a_proof_is_checked_without_any_database(
    audit: Audit, site: Site, tmp_path: Path, sealer_pool: ledger.Pool
) -> None:
    _, [request_id] = site.a_waiting_run()
    shown = ids.show("req", request_id)
    assert site.vote(request_id, site.token(site.ana)).status_code == 200
    seal(sealer_pool)
    made = audit("prove", shown)
    file = tmp_path / "proof.json"
    file.write_text(made.stdout)

    offline = audit("verify", "--proof", str(file), "--keys", KEYS, env={})
    file.write_text(made.stdout.replace("request.approved", "request.denied"))
    forged = audit("verify", "--proof", str(file), "--keys", KEYS, env={})
    nonsense: list[int] = []
    endless = made.stdout.replace('"unsealed": 0', '"unsealed": Infinity')
    for text in ("{}", endless, made.stdout.replace('"position": ', '"position": 1e999, "x": '), "[" * 200_000):
        file.write_text(text)
        nonsense.append(audit("verify", "--proof", str(file), "--keys", KEYS, env={}).returncode)

    assert made.returncode == 0, made.stderr
    assert offline.returncode == 0, offline.stderr
    assert f"of {shown} are in the log under head 1" in offline.stdout
    assert "Infinity" in endless
    assert (forged.returncode, nonsense) == (1, [2] * 4)
    assert audit("prove", "req_" + "0" * 32).returncode == 4


def test_the_export_is_the_whole_log_and_is_checked_without_any_database(
    audit: Audit, site: Site, tmp_path: Path, sealer_pool: ledger.Pool
) -> None:
    site.a_waiting_run()
    [head] = seal(sealer_pool)
    file, receipt = tmp_path / "log.ndjson", tmp_path / "receipt.txt"
    file.write_text(audit("export").stdout)
    receipt.write_text(f"The audit log's newest head: {head.in_words()}")

    def offline() -> CompletedProcess[str]:
        return audit("verify", "--export", str(file), "--receipt", str(receipt), "--keys", KEYS, env={})

    good = offline()
    file.write_text(file.read_text().replace("run.submitted", "run.cancelled"))
    edited = offline()
    file.write_text("hello")
    nonsense = offline()

    assert good.returncode == 0, good.stdout + good.stderr
    assert f"{head.size} events under 1 heads" in good.stdout
    assert edited.returncode == 1
    assert "positions 0 to" in edited.stdout
    assert nonsense.returncode == 2
    assert audit("verify", "--export", str(tmp_path / "nowhere"), "--keys", KEYS, env={}).returncode == 2


def test_the_nearest_stack_has_the_keys_also_after_another_one_seals(
    database: Database, tmp_path: Path, sealer_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    (tmp_path / ".banksman").mkdir()
    secrets = tmp_path / ".banksman" / "secrets.json"
    first = keyring.load_or_make(secrets, data_exists=False)
    (tmp_path / ".banksman" / "stack.json").write_text(json.dumps({"database_url": database.owner}))

    def sealed() -> CompletedProcess[str]:
        ring = keyring.load_or_make(secrets, data_exists=True)
        key = Signer.read(ring.sealing_key)
        write(worker_pool, 3)
        with ledger.transaction(sealer_pool) as conn:
            sealer.seal(conn, key, Verifier.read(ring.seal_verify_keys or key.public()))
        return run("audit", "verify", cwd=tmp_path)

    before = sealed()
    rotated = run("keys", "rotate", "sealing", cwd=tmp_path)
    after = sealed()

    assert (before.returncode, rotated.returncode, after.returncode) == (0, 0, 0), after.stdout + after.stderr
    assert "6 events under 2 heads" in after.stdout
    old = first.sealing_key.partition(":")[0]
    assert f"{old} (sealing) is retired." in rotated.stdout
    assert first.sealing_key not in secrets.read_text()
    assert "banksman audit verify --keys" in rotated.stderr
    alone = run("audit", "verify", "--keys", Signer.read(first.sealing_key).public(), cwd=tmp_path)
    assert alone.returncode == 1


def test_a_deployments_checker_learns_the_next_sealing_key_too(tmp_path: Path) -> None:
    write_deployment(tmp_path, admin_email="ada@example.org", public_url="https://ok.example.org")

    rotated = run("keys", "rotate", "sealing", "--folder", str(tmp_path), "--json", cwd=tmp_path)

    states = [key["state"] for key in json.loads(rotated.stdout)]
    gateway, migrate = (
        files.settings_in((tmp_path / "secrets" / f"{name}.env").read_text()) for name in ("gateway", "migrate")
    )
    assert states == ["current", "retired"]
    assert gateway["BANKSMAN_SEAL_VERIFY_KEYS"] == migrate["BANKSMAN_SEAL_VERIFY_KEYS"]
    assert Signer.read(gateway["BANKSMAN_SEALING_KEY"]).public() == migrate["BANKSMAN_SEAL_VERIFY_KEYS"].split(",")[0]
    assert "restart the gateway" in rotated.stderr
