"""The policy over HTTP: uploads and their versions, one call judged, and the past judged again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.ids import RequestId
from banksman.ledger import agents, audit, staff
from banksman.records import Person
from tests.conftest import Database
from tests.gateway.browser import Browser
from tests.gateway.scenes import Site, asking

RULES = """
[[rule]]
name = "small"
tool = "pay"
when = "args.amount <= 100"
then = "allow"

[[rule]]
name = "odd"
tool = "pay"
when = "args.amount == 666"
then = "deny"
because = "Never that one."
"""


@pytest.fixture
def admin(site: Site) -> Person:
    return site.a_person("root@example.org", "admin", "reviewer")


def upload(site: Site, person: Person, text: str = RULES, **more: Any) -> Response:
    return site.client.post("/v1/policy", json={"text": text, **more}, headers=site.token(person))


def post(site: Site, path: str, headers: Mapping[str, str] | None = None, **body: Any) -> Response:
    return site.client.post(f"/v1/policy/{path}", json=body, headers=headers or site.token(site.ana))


def read(site: Site, path: str = "") -> dict[str, Any]:
    answer = site.client.get(f"/v1/policy{path}", headers=site.token(site.ana))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_administrators_upload_is_in_force_and_stands_in_the_audit_log(site: Site, admin: Person) -> None:
    assert (read(site)["version"], read(site)["source"]) == ("default", "settings")

    made = upload(site, admin)

    assert made.status_code == 200, made.text
    assert (made.json()["version"], made.json()["by"]) == ("v1", "root@example.org")
    assert read(site)["text"] == RULES
    assert read(site)["problem"] is None
    with ledger.transaction(site.gateway) as conn:
        [event] = [event for event in audit.since(conn, (0, 0)) if event.action == "policy.uploaded"]
    assert (event.actor, event.body["version"]) == (ids.show("per", admin.id), 1)
    assert event.body["sha256"] == made.json()["sha256"]


def test_versions_are_kept_and_listed_newest_first(site: Site, admin: Person) -> None:
    for number in range(3):
        upload(site, admin, f"# {number}\n" + RULES)

    first = read(site, "/versions?limit=2")
    assert [item["version"] for item in first["items"]] == ["v3", "v2"]
    rest = read(site, f"/versions?limit=2&cursor={first['next_cursor']}")
    assert [item["version"] for item in rest["items"]] == ["v1"]
    assert rest["next_cursor"] is None
    assert read(site, "/versions/2")["text"].startswith("# 1")


def test_only_an_administrator_in_person_uploads(site: Site, admin: Person) -> None:
    operator = site.a_person("op@example.org", "operator", "reviewer")

    assert upload(site, site.ana).status_code == 403
    assert upload(site, operator).status_code == 403
    for headers in (site.key("requests:read", owner=admin.id), site.key("policy", owner=admin.id)):
        refused = site.client.post("/v1/policy", json={"text": RULES}, headers=headers)
        assert refused.status_code == 403
    narrow = site.client.post("/v1/policy", json={"text": RULES}, headers=site.token(admin, "votes"))
    assert narrow.status_code == 403
    assert read(site)["version"] == "default"


def test_a_text_that_is_wrong_is_refused_with_rule_and_line(site: Site, admin: Person) -> None:
    answer = upload(site, admin, RULES + '[[rule]]\nname = "x"\nthen = "ask"\non_expiry = "allow"\n')

    assert answer.status_code == 422
    assert "rule 3 'x', line 17" in answer.json()["detail"]
    assert "silence decides nothing" in answer.json()["detail"]
    assert read(site)["version"] == "default"


def test_a_requirement_that_nobody_could_meet_is_refused(site: Site, admin: Person) -> None:
    text = '[[rule]]\nname = "x"\ntool = "pay"\nthen = "ask"\ngroups = {finance = 1}\n'
    answer = upload(site, admin, text)

    assert answer.status_code == 422
    assert "rule 'x', line 1: nobody could ever meet tier medium, 1 person: 1 of finance" in answer.json()["detail"]

    with ledger.transaction(site.gateway) as conn:
        for name in ("f", "g"):
            staff.upsert(conn, f"{name}@example.org", name=name, groups=("finance",))
    assert upload(site, admin, text).status_code == 200


def test_a_version_made_from_an_older_one_is_a_conflict(site: Site, admin: Person) -> None:
    assert upload(site, admin, after=0).status_code == 200

    late = upload(site, admin, after=0)

    assert late.status_code == 409
    assert late.json()["current"] == {"version": 1}
    assert upload(site, admin, after=1).status_code == 200


@pytest.mark.parametrize("text", ["\x00", "a" * 70_000, "[[rule]]", "x = " + "[" * 3000, "\u2028", "x = 9e999999"])
def test_no_text_breaks_the_upload(site: Site, admin: Person, text: str) -> None:
    assert upload(site, admin, text).status_code == 422


def test_a_call_is_judged_by_the_policy_in_force_and_by_a_candidate(site: Site, admin: Person) -> None:
    upload(site, admin)
    call: dict[str, Any] = {"agent": "plain", "tool": "pay", "arguments": {"amount": 666}}

    said = post(site, "simulate", **call).json()
    assert (said["verdict"], said["rule"], said["line"]) == ("deny", "odd", 8)
    assert (said["because"], said["policy"]) == ("Never that one.", "v1")

    other = post(
        site, "simulate", **call, policy='[[rule]]\nname = "two"\ntool = "pay"\nthen = "ask"\ntier = "high"'
    ).json()
    assert (other["verdict"], other["rule"], other["policy"]) == ("ask", "two", "candidate")
    assert other["requirement"]["tier"] == "high"

    unclear = post(site, "simulate", agent="plain", tool="pay", arguments={"amount": "many"}).json()
    assert unclear["unclear"] is True
    assert unclear["requirement"]["tier"] == "high"


def test_what_a_tool_is_like_is_taken_from_what_the_workers_announced(site: Site) -> None:
    with ledger.transaction(site.worker) as conn:
        agents.announce(conn, {"deep": ("1", {"ls": {"effects": "harmless", "flagged": False, "local": True}})})

    assert post(site, "simulate", agent="deep", tool="ls").json()["verdict"] == "allow"
    assert post(site, "simulate", agent="deep", tool="other").json()["rule"] == "unknown-effects"
    assert post(site, "simulate", agent="deep", tool="ls", flagged=True).json()["rule"] == "flagged"


def test_who_sees_only_their_own_runs_does_not_see_the_policy(site: Site, admin: Person) -> None:
    upload(site, admin)
    nobody = site.token(site.a_person("guest@example.org"))

    assert site.client.get("/v1/policy", headers=nobody).status_code == 403
    assert site.client.get("/v1/policy/versions", headers=nobody).status_code == 403
    assert post(site, "simulate", nobody, agent="a", tool="b").status_code == 403
    assert post(site, "replay", nobody).status_code == 403
    key = site.key("requests:read")
    assert site.client.get("/v1/policy", headers=key).status_code == 200
    assert post(site, "simulate", key, agent="a", tool="b").status_code == 200
    assert post(site, "simulate", key, agent="a", tool="b", policy=RULES).status_code == 403


def decided(site: Site, amount: object, verdict: str | None) -> RequestId:
    _, [request_id] = site.a_waiting_run(asking(tool="pay", arguments={"amount": amount}))
    if verdict is not None:
        assert site.vote(request_id, site.token(site.ana), verdict=verdict).status_code == 200
    return request_id


def test_a_replay_counts_what_would_be_different_and_where_people_decided_otherwise(site: Site, admin: Person) -> None:
    decided(site, 50, "approve")
    denied = decided(site, 60, "deny")
    decided(site, 70, None)
    odd = decided(site, 666, "approve")
    decided(site, 500, "approve")
    decided(site, "many", "approve")
    upload(site, admin)

    found = post(site, "replay").json()

    assert found["examined"] == 6
    assert found["verdicts"] == {
        "allow": {"approved": 1, "denied": 1, "open": 1},
        "deny": {"approved": 1},
        "ask": {"approved": 2},
    }
    assert (found["unclear"], found["disagreements"]) == (1, 2)
    assert found["asking"] == {"same": 1, "stricter": 1}
    assert {item["request_id"] for item in found["examples"]} == {ids.show("req", denied), ids.show("req", odd)}
    assert found["next_cursor"] is None


def test_a_replay_goes_on_page_by_page_and_misses_nothing(site: Site, admin: Person) -> None:
    made = [decided(site, amount, None) for amount in range(5)]
    cursor, examined = None, 0
    for expected in (2, 2, 1):
        body: dict[str, Any] = {"limit": 2, "policy": RULES} | ({"cursor": cursor} if cursor else {})
        found = post(site, "replay", site.token(admin), **body).json()
        assert found["examined"] == expected
        examined, cursor = examined + expected, found["next_cursor"]
    assert (examined, cursor) == (len(made), None)


def test_a_replay_looks_back_as_far_as_it_is_told(site: Site, admin: Person) -> None:
    decided(site, 1, None)
    time.sleep(1.1)
    late = decided(site, 2, None)

    assert post(site, "replay", site.token(admin), since="1s", policy=RULES).json()["examined"] == 1
    assert late
    assert post(site, "replay", site.token(admin), since="1h", policy=RULES).json()["examined"] == 2
    assert post(site, "replay", since="yesterday").status_code == 422


def test_a_replay_judges_what_the_agent_proposed_and_not_what_people_made_of_it(site: Site, admin: Person) -> None:
    request = asking(tool="write_file", arguments={"path": "/a.txt", "content": "x"})
    _, [request_id] = site.a_waiting_run(request)
    edited = site.vote(request_id, site.token(site.ana), arguments={"path": "/b.txt"})
    assert edited.status_code == 200, edited.text
    rules = '[[rule]]\nname = "a"\ntool = "write_file"\nwhen = \'args.path == "/a.txt"\'\nthen = "deny"\n'

    assert post(site, "replay", site.token(admin), policy=rules).json()["verdicts"] == {"deny": {"approved": 1}}


def test_only_an_administrator_tries_a_candidate_on_the_past_and_the_log_says_so(site: Site, admin: Person) -> None:
    pin = {"agent": "plain", "password": "hunter22-is-long"}
    site.a_waiting_run(asking(tool="login", arguments=pin))
    guess = '[[rule]]\nname = "hit"\ntool = "login"\nwhen = \'args.password.startsWith("h")\'\nthen = "deny"\n'
    others = [site.a_person(f"{role}@example.org", role) for role in ("auditor", "reviewer", "operator")]

    refused = [post(site, "replay", site.token(person), policy=guess) for person in others]
    in_force = [post(site, "replay", site.token(person)).status_code for person in others]
    with ledger.transaction(site.gateway) as conn:
        before = [event for event in audit.since(conn, (0, 0)) if event.action == "policy.replayed"]
    tried = post(site, "replay", site.token(admin), policy=guess)
    with ledger.transaction(site.gateway) as conn:
        [event] = [event for event in audit.since(conn, (0, 0)) if event.action == "policy.replayed"]

    assert [answer.status_code for answer in refused] == [403] * 3
    assert not [answer for answer in refused if "hit" in answer.text]
    assert (in_force, before) == ([200] * 3, [])
    assert tried.json()["rules"] == {"hit": 1}
    assert event.actor == ids.show("per", admin.id)
    assert event.body["sha256"] == hashlib.sha256(guess.encode()).hexdigest()


def test_an_upload_that_somebody_altered_shows_as_such(site: Site, admin: Person, database: Database) -> None:
    upload(site, admin)
    with psycopg.connect(database.owner) as conn:
        conn.execute("ALTER TABLE policies DISABLE TRIGGER USER")
        conn.execute("UPDATE policies SET signature = decode(repeat('00', 64), 'hex')")

    assert "does not hold" in read(site)["problem"]
    assert read(site)["text"] is None
    assert post(site, "simulate", agent="plain", tool="pay", arguments={"amount": 1}).json()["policy"] == "refused"
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE policies SET statement = '\\xff'")
    assert "sealed in a way" in read(site)["problem"]


def test_the_page_shows_the_rules_and_escapes_them(site: Site, admin: Person) -> None:
    upload(site, admin, RULES + '[[rule]]\nname = "<b>x</b>"\ntool = "x"\nthen = "deny"\nbecause = "<i>no</i>"\n')
    browser = Browser(site)
    browser.sign_in(site.ana)

    page = browser.get("/policy").text

    assert "args.amount &lt;= 100" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x</b>" not in page
    assert "<i>no</i>" not in page
    assert "root@example.org" in page


def test_nobody_reads_the_page_without_a_role_or_a_session(site: Site) -> None:
    assert Browser(site).get("/policy").status_code == 303
    guest = Browser(site)
    guest.sign_in(site.a_person("guest@example.org"))
    assert guest.get("/policy").status_code == 404
