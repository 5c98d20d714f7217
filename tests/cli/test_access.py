"""Whoever owns the database makes the first keys and lets the first people in; what they make works at the gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg
import pytest

from banksman import ids, ledger
from banksman.embedded import keyring
from banksman.ledger import audit
from banksman.scopes import OF_KEYS
from tests.cli.conftest import run
from tests.conftest import Database
from tests.gateway.scenes import Site

Owner = Callable[..., CompletedProcess[str]]


@pytest.fixture
def owner(database: Database, tmp_path: Path) -> Owner:
    """Runs a command as the owner of the database, as in the container of `migrate`."""
    env = {"BANKSMAN_DATABASE_URL": database.owner}
    return lambda *arguments, **more: run(*arguments, cwd=tmp_path, env=env, **more)


def submits(site: Site, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    body = {"agent": "plain", "prompt": "Do it."}
    return site.client.post("/v1/runs", json=body, headers=headers).status_code


def told(site: Site) -> list[tuple[str, str, Any]]:
    with ledger.transaction(site.gateway) as conn:
        events = audit.since(conn, (0, 0))
    return [
        (event.actor, event.action, event.body) for event in events if event.action.startswith(("key.", "reviewer."))
    ]


def test_a_key_is_printed_once_opens_what_it_may_and_ends_when_it_is_revoked(owner: Owner, site: Site) -> None:
    made = owner("keys", "create", "--name", "ci", "--scope", "runs:submit", "--days", "7")
    key = made.stdout.strip()
    listed = owner("keys", "list")
    [facts] = json.loads(owner("keys", "list", "--json").stdout)

    assert made.returncode == 0, made.stderr
    assert key.startswith("bk_key_")
    assert submits(site, key) == 201
    assert key.rsplit("_", 2)[1] not in made.stderr + listed.stdout + json.dumps(facts)
    assert (facts["name"], facts["scopes"], facts["state"]) == ("ci", ["runs:submit"], "valid")

    revoked = [owner("keys", "revoke", facts["id"]) for _ in range(2)]

    assert [ended.returncode for ended in revoked] == [0, 0]
    assert submits(site, key) == 401
    assert "revoked" in owner("keys", "list").stdout
    assert [(actor, action, body["key"]) for actor, action, body in told(site)] == [
        ("owner", "key.made", facts["id"]),
        ("owner", "key.revoked", facts["id"]),
    ]


def test_a_keys_owner_is_the_requester_of_its_runs(owner: Owner, site: Site) -> None:
    arguments = ("--name", "ana's cron", "--scope", "runs:submit", "--scope", "runs:read")
    made = owner("keys", "create", *arguments, "--owner", "Ana@example.org", "--json")
    facts = json.loads(made.stdout)

    run_ = site.client.post(
        "/v1/runs", json={"agent": "plain", "prompt": "Do it."}, headers={"Authorization": f"Bearer {facts['key']}"}
    )

    assert run_.json()["requester"] == facts["owner"] == "ana@example.org"
    assert facts["scopes"] == ["runs:read", "runs:submit"]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--scope", "runs:eat", "--scope", "runs:read"), 2, "'runs:eat'"),
        (("--scope", "votes"), 2, "people vote"),
        ((), 2, "--scope"),
        (("--scope", "runs:read", "--days", "366"), 2, "--days"),
        (("--scope", "runs:read", "--owner", "nobody@example.org"), 4, "nobody@example.org"),
        (("--scope", "runs:read", "--name", "a\nb"), 2, "printable"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_name(
    owner: Owner, site: Site, arguments: tuple[str, ...], code: int, named: str
) -> None:
    ended = owner("keys", "create", "--name", "ci", *arguments)

    assert ended.returncode == code
    assert named in ended.stderr
    assert json.loads(owner("keys", "list", "--json").stdout) == []
    assert told(site) == []


def test_two_keys_of_a_name_may_count_and_no_third(owner: Owner, site: Site) -> None:
    arguments = ("keys", "create", "--name", "ci", "--scope", "runs:read")
    ended = [owner(*arguments) for _ in range(3)]

    assert [item.returncode for item in ended[:2]] == [0, 0]
    assert ended[2].returncode != 0
    assert "Two keys called 'ci' count already" in ended[2].stderr
    assert len(json.loads(owner("keys", "list", "--json").stdout)) == 2


def test_revoking_a_key_that_is_not_there_revokes_none(owner: Owner, site: Site) -> None:
    site.key("runs:read")
    [there] = json.loads(owner("keys", "list", "--json").stdout)

    ended = owner("keys", "revoke", there["id"], ids.show("key", ids.new()))

    assert ended.returncode == 4
    assert json.loads(owner("keys", "list", "--json").stdout)[0]["state"] == "valid"


def test_a_reviewer_is_added_changed_and_disabled(owner: Owner, site: Site) -> None:
    added = owner("reviewers", "add", "eve@example.org", "--name", "Eve", "--group", "finance", "--json")
    eve = json.loads(added.stdout)
    changed = owner("reviewers", "add", "EVE@example.org", "--role", "reviewer", "--role", "operator")
    [card] = [person for person in json.loads(owner("reviewers", "list", "--json").stdout) if person["id"] == eve["id"]]

    assert (eve["roles"], eve["groups"]) == (["reviewer"], ["finance"])
    assert changed.stdout == "changed eve@example.org: operator, reviewer of finance\n"
    assert (card["name"], card["roles"]) == ("Eve", ["operator", "reviewer"])

    person = site.a_person("eve@example.org", "reviewer")
    token = site.token(person)
    assert site.client.get("/v1/requests", headers=token).status_code == 200
    disabled = [owner("reviewers", "disable", "eve@example.org") for _ in range(2)]

    assert [ended.returncode for ended in disabled] == [0, 0]
    assert site.client.get("/v1/requests", headers=token).status_code == 401
    assert "disabled" in owner("reviewers", "list").stdout
    assert owner("reviewers", "add", "eve@example.org").returncode == 3
    assert [(actor, action) for actor, action, _ in told(site)] == [
        ("owner", "reviewer.added"),
        ("owner", "reviewer.changed"),
        ("owner", "reviewer.disabled"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("add", "eve"), 2, "'eve'"),
        (("add", "eve@example.org\nBcc: x@example.org"), 2, "not an e-mail address"),
        (("add", "eve@example.org", "--role", "king"), 2, "'king'"),
        (("add", "eve@example.org", "--group", "a\x1bb"), 2, "printable"),
        (("disable", "nobody@example.org"), 4, "nobody@example.org"),
    ],
)
def test_a_person_who_cannot_be_is_refused(
    owner: Owner, site: Site, arguments: tuple[str, ...], code: int, named: str
) -> None:
    ended = owner("reviewers", *arguments)

    assert ended.returncode == code
    assert named in ended.stderr
    assert told(site) == []


def test_the_nearest_stacks_database_is_taken_when_none_is_named(database: Database, tmp_path: Path) -> None:
    (tmp_path / ".banksman").mkdir()
    facts = {"database_url": database.owner}
    (tmp_path / ".banksman" / "stack.json").write_text(json.dumps(facts))

    made = run("reviewers", "add", "eve@example.org", cwd=tmp_path)

    assert made.stdout == "added eve@example.org: reviewer\n"
    with psycopg.connect(database.owner) as conn:
        assert conn.execute("SELECT email FROM people").fetchall() == [("eve@example.org",)]


def test_a_database_that_cannot_be_used_is_said_in_a_sentence(database: Database, tmp_path: Path) -> None:
    empty = database.owner.rpartition("/")[0] + "/postgres"
    ended = {
        url: run("keys", "list", cwd=tmp_path, env={"BANKSMAN_DATABASE_URL": url})
        for url in ("", "nonsense", "postgresql://a:b@127.0.0.1:1/none", empty, database.notifier)
    }

    assert [found.returncode for found in ended.values()] == [2, 2, 6, 2, 2]
    said = [found.stderr for found in ended.values()]
    words = ("not set", "not a PostgreSQL URL", "cannot be reached", "banksman migrate", "owner's")
    for sentence, word in zip(said, words, strict=True):
        assert word in sentence
        assert "Traceback" not in sentence


def test_the_api_page_lists_every_scope() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()

    assert [scope for scope in OF_KEYS if f"\n| `{scope}` |" not in page] == []


def test_the_gateways_keys_are_listed_rotated_retired_and_revoked(tmp_path: Path) -> None:
    deployed = run("init", "--admin", "you@example.org", cwd=tmp_path)
    assert deployed.returncode == 0, deployed.stderr
    listed = {key["kind"]: key["id"] for key in json.loads(run("keys", "list", "--json", cwd=tmp_path).stdout)}
    assert listed.keys() == {"signing", "link", "vault"}

    early = run("keys", "retire", listed["signing"], cwd=tmp_path)
    rotated = run("keys", "rotate", cwd=tmp_path)
    again = run("keys", "retire", listed["signing"], cwd=tmp_path)
    revoked = run("keys", "revoke", listed["signing"], listed["link"], cwd=tmp_path)
    unknown = run("keys", "revoke", "g000000", cwd=tmp_path)

    assert (early.returncode, unknown.returncode) == (3, 4)
    assert f"{listed['signing']} (signing) is retired." in rotated.stdout
    assert rotated.stderr.index("agent-worker") < rotated.stderr.index("deps gateway")
    assert "nothing was changed" in again.stderr
    assert f"{listed['signing']} (signing) is revoked." in revoked.stdout
    assert f"{listed['link']} (link) is gone." in revoked.stdout
    states = {key["id"]: key["state"] for key in json.loads(run("keys", "list", "--json", cwd=tmp_path).stdout)}
    assert sorted(states.values()) == ["current", "current", "current", "revoked"]
    assert states[listed["signing"]] == "revoked"
    seed = dict(line.split("=", 1) for line in (tmp_path / "secrets" / "gateway.env").read_text().splitlines()[1:])
    assert seed["BANKSMAN_SIGNING_KEY"].partition(":")[2] not in "".join(
        done.stdout + done.stderr for done in (early, rotated, again, revoked)
    )


def test_a_stacks_keys_change_with_its_next_start_and_two_gateways_are_not_confused(tmp_path: Path) -> None:
    (tmp_path / ".banksman").mkdir()
    keyring.load_or_make(tmp_path / ".banksman" / "secrets.json", data_exists=False)

    alone = run("keys", "rotate", "link", cwd=tmp_path)
    run("init", "--admin", "you@example.org", cwd=tmp_path)
    confused = run("keys", "rotate", cwd=tmp_path)
    named = run("keys", "rotate", "--folder", str(tmp_path), cwd=tmp_path)
    nowhere = run("keys", "rotate", "--folder", str(tmp_path / "nowhere"), cwd=tmp_path)

    assert (alone.returncode, confused.returncode, named.returncode, nowhere.returncode) == (0, 2, 0, 2)
    assert "next `banksman up`" in alone.stderr
    assert "--folder" in confused.stderr
    ring = keyring.load_or_make(tmp_path / ".banksman" / "secrets.json", data_exists=True)
    assert len(ring.link_keys.split(",")) == 2
    assert len(ring.verify_keys.split(",")) == 1
