"""Commands about installations: the database brought up to date, a deployment's secrets, an inventory of agents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from banksman import ledger
from banksman.embedded import postgres
from banksman.ledger import migrate, roster, staff
from tests.cli.conftest import run

PASSWORDS = {f"BANKSMAN_{role.removeprefix('banksman_').upper()}_PASSWORD": f"{role}-secret" for role in migrate.ROLES}


@pytest.fixture
def empty_database(postgres_server: postgres.Postgres) -> Iterator[str]:
    name = f"empty_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"'.encode())
        yield postgres_server.url(name)
        conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def test_a_database_is_brought_up_to_date_once_with_its_first_administrator(
    empty_database: str, tmp_path: Path
) -> None:
    env = {"BANKSMAN_DATABASE_URL": empty_database, "BANKSMAN_ADMIN_EMAIL": "ada@example.org", **PASSWORDS}

    first, second = (run("migrate", cwd=tmp_path, env=env) for _ in range(2))

    assert "applied 0001_" in first.stdout
    assert "made the administrator ada@example.org" in first.stdout
    assert second.stdout == "Nothing to apply: the database is up to date.\n"
    with psycopg.connect(empty_database) as conn:
        row = conn.execute("SELECT roles FROM people").fetchone()
    assert row is not None
    assert "admin" in row[0]


def test_a_first_administrator_who_was_removed_stays_removed(empty_database: str, tmp_path: Path) -> None:
    env = {"BANKSMAN_DATABASE_URL": empty_database, "BANKSMAN_ADMIN_EMAIL": "ada@example.org", **PASSWORDS}
    run("migrate", cwd=tmp_path, env=env)
    with ledger.once(empty_database, name="test") as conn:
        roster.add(conn, "x", "ben@example.org", name="", roles=["admin"], groups=(), membership=timedelta(0))
        ada = staff.by_email(conn, "ada@example.org")
        assert ada is not None
        roster.remove(conn, "x", ada.id)

    again = run("migrate", cwd=tmp_path, env=env | {"BANKSMAN_ADMIN_EMAIL": "Ada@example.org"})

    with ledger.once(empty_database, name="test") as conn:
        assert [person.email for person in staff.everybody(conn)] == ["ben@example.org"]
    assert again.returncode == 0, again.stderr
    assert "Ada@example.org was removed" in again.stderr


def test_a_database_that_is_away_is_exit_code_6(tmp_path: Path) -> None:
    env = {"BANKSMAN_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/none"}

    ended = run("migrate", cwd=tmp_path, env=env)

    assert ended.returncode == 6
    assert "cannot be reached" in ended.stderr


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    ended = run("migrate", cwd=tmp_path)

    assert ended.returncode == 2
    assert "BANKSMAN_DATABASE_URL" in ended.stderr


def test_the_roles_are_printed_for_whoever_may_make_them(tmp_path: Path) -> None:
    ended = run("migrate", "--print-roles", cwd=tmp_path)

    assert [f"CREATE ROLE {role} LOGIN" in ended.stdout for role in migrate.ROLES] == [True] * 4


def test_a_deployments_secrets_are_written_once(tmp_path: Path) -> None:
    arguments = ("init", "--admin", "ada@example.org", "--url", "https://ok.example.org")

    first, second = (run(*arguments, cwd=tmp_path) for _ in range(2))

    assert "secrets/gateway.env" in first.stdout
    assert second.stdout == ""
    assert "nothing was changed" in second.stderr
    assert run("init", "--admin", "nobody", cwd=tmp_path).returncode == 2


def test_the_inventory_of_an_agent_is_printed(tmp_path: Path) -> None:
    ended = run("check", "banksman_plain:agents", cwd=tmp_path)
    as_json = run("check", "banksman_plain:agents", "--json", cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "issue_refund" in ended.stdout
    [gate] = {row["verdict"] for row in json.loads(as_json.stdout) if row["tool"] == "issue_refund"}
    assert gate == "ask"


def test_agents_that_a_worker_would_refuse_are_exit_code_1(tmp_path: Path) -> None:
    ended = run("check", "no_such_module:agents", cwd=tmp_path)

    assert ended.returncode == 1
    assert "no_such_module" in ended.stdout + ended.stderr


def test_up_brings_the_agents_that_the_environment_names(tmp_path: Path) -> None:
    env = {"BANKSMAN_AGENTS": "no_such_module:agents", "BANKSMAN_DATA_DIR": str(tmp_path / "data")}

    ended = run("up", "--port", "0", cwd=tmp_path, env=env)

    assert ended.returncode == 1
    assert "no_such_module" in ended.stdout + ended.stderr


def test_a_second_stack_on_the_same_data_is_refused(tmp_path: Path) -> None:
    from banksman.embedded import folder

    data = tmp_path / "data"
    folder.make_private(data)

    with folder.held(data):
        ended = run("up", cwd=tmp_path, env={"BANKSMAN_DATA_DIR": str(data)})

    assert ended.returncode == 2
    assert "already up" in ended.stderr
