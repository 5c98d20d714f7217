"""People: who comes, changes and goes; what that means at once; and that nobody is let in to approve what waits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from banksman import ids, ledger
from banksman.ledger import audit, keys, people, roster, staff
from banksman.records import Person
from banksman.settings import GatewaySettings
from banksman_gateway import app
from tests.conftest import Database
from tests.gateway.browser import Browser, Form, forms_in
from tests.gateway.scenes import Site, asking

HOUR = timedelta(hours=1)


@pytest.fixture
def boss(site: Site) -> Person:
    return site.a_person("boss@example.org", "admin")


def post(site: Site, path: str, person: Person, body: Any = None) -> Response:
    return site.client.post(f"/v1/people{path}", json=body, headers=site.token(person))


def shown(person: Person) -> str:
    return ids.show("per", person.id)


def filled(form: Form, fields: dict[str, str]) -> Form:
    """The form with these fields typed over."""
    return Form(form.action, form.fields | fields)


def told(site: Site) -> list[tuple[str, str, Any, Any]]:
    with ledger.transaction(site.gateway) as conn:
        events = audit.since(conn, (0, 0))
    return [
        (item.actor, item.action, item.body["before"], item.body["after"])
        for item in events
        if item.action.startswith("reviewer.")
    ]


def test_an_administrator_lets_somebody_in_changes_and_disables_them_over_the_api(site: Site, boss: Person) -> None:
    made = post(site, "", boss, {"email": "eve@example.org", "groups": ["finance"]})
    eve = made.json()["id"]
    changed = post(site, f"/{eve}/change", boss, {"roles": ["auditor"], "name": "Eve"})
    disabled = post(site, f"/{eve}/disable", boss)
    enabled = post(site, f"/{eve}/enable", boss)
    removed = post(site, f"/{eve}/remove", boss)
    listed = site.client.get("/v1/people", headers=site.token(boss)).json()["items"]

    assert [item.status_code for item in (made, changed, disabled, enabled, removed)] == [201, 200, 200, 200, 200]
    assert made.headers["location"] == f"/v1/people/{eve}"
    assert (changed.json()["roles"], changed.json()["groups"]) == (["auditor"], ["finance"])
    assert [item.json()["disabled"] for item in (disabled, enabled, removed)] == [True, False, True]
    assert eve not in [item["id"] for item in listed]
    was = {"roles": ["auditor"], "groups": ["finance"], "disabled": False}
    assert told(site) == [
        (shown(boss), "reviewer.added", None, was | {"roles": ["reviewer"]}),
        (shown(boss), "reviewer.changed", was | {"roles": ["reviewer"]}, was),
        (shown(boss), "reviewer.disabled", was, was | {"disabled": True}),
        (shown(boss), "reviewer.enabled", was | {"disabled": True}, was),
        (shown(boss), "reviewer.removed", was, None),
    ]


@pytest.mark.parametrize("role", ["reviewer", "operator", "auditor"])
def test_nobody_but_an_administrator_changes_people_and_keys(site: Site, boss: Person, role: str) -> None:
    other = site.a_person("other@example.org", role)
    browser = Browser(site)
    browser.sign_in(other)
    moves = ["change", "disable", "enable", "remove"]

    refused = [post(site, f"/{shown(boss)}/{move}", other, {} if move == "change" else None) for move in moves]
    refused.append(post(site, "", other, {"email": "x@example.org"}))
    refused.append(site.client.post("/v1/keys", json={"name": "k", "scopes": ["runs:read"]}, headers=site.token(other)))
    token = form_in_account(browser)
    paths = ["/people", "/keys", *(f"/people/{shown(boss)}/{move}" for move in moves)]
    fields = {"form": token, "name": "k", "email": "x@example.org"}
    refused += [browser.send(Form(path, fields)) for path in paths]

    assert {answer.status_code for answer in refused} == {403}
    looks = [browser.get(path).status_code for path in ("/people", f"/people/{shown(boss)}", "/keys")]
    assert looks == [200 if role == "auditor" else 403] * 3
    assert told(site) == []


def test_a_machines_key_never_manages_people(site: Site, boss: Person) -> None:
    for scopes in (["runs:read"], ["people"], ["votes", "people"]):
        headers = site.key(*scopes, owner=boss.id)
        assert site.client.get("/v1/people", headers=headers).status_code == 403
        assert site.client.post("/v1/people", json={"email": "x@example.org"}, headers=headers).status_code == 403


@pytest.mark.parametrize("move", ["disable", "remove", "change"])
def test_the_last_administrator_stays(site: Site, boss: Person, move: str) -> None:
    body = {"roles": ["reviewer"]} if move == "change" else None

    alone = post(site, f"/{shown(boss)}/{move}", boss, body)
    second = site.a_person("second@example.org", "admin")
    beside = post(site, f"/{shown(boss)}/{move}", second, body)
    last = post(site, f"/{shown(second)}/{move}", second, body)

    assert [item.status_code for item in (alone, beside, last)] == [409, 200, 409]
    assert "last administrator" in alone.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"email": "x"},
        {"email": "x@example.org", "roles": []},
        {"email": "x@example.org", "roles": ["god"]},
        {"email": "x@example.org", "groups": ["admins"]},
        {"email": "x@example.org", "groups": ["a,b"]},
        {"email": "x@example.org", "groups": ["a\u202eb"]},
        {"email": "x@example.org", "groups": ["g" * 101]},
        {"email": "x@example.org", "groups": ["g"] * 60},
        {"email": "x@example.org", "name": "a\nb"},
        {"email": 1},
        {},
    ],
)
def test_what_cannot_be_a_person_is_refused(site: Site, boss: Person, body: Any) -> None:
    assert post(site, "", boss, body).status_code == 422
    assert told(site) == []


@pytest.mark.parametrize("move", ["disable", "remove"])
def test_who_is_disabled_or_removed_stops_counting_at_once(site: Site, boss: Person, move: str) -> None:
    _, [asked] = site.a_waiting_run(asking(approvals=2))
    browser = Browser(site)
    browser.sign_in(site.ana)
    token, key = site.token(site.ana), site.key("runs:read", owner=site.ana.id)
    assert site.vote(asked, token).status_code == 200

    assert post(site, f"/{shown(site.ana)}/{move}", boss).status_code == 200

    assert browser.get("/").status_code == 303
    assert site.client.get("/v1/runs", headers=token).status_code == 401
    assert site.client.get("/v1/runs", headers=key).status_code == 401
    looks = site.client.get(f"/v1/requests/{ids.show('req', asked)}", headers=site.token(site.ben)).json()
    assert [vote["by"] for vote in looks["votes"]] == ["ana@example.org"]
    body = {"verdict": "approve", "digest": looks["digest"], "revision": 1}
    url = f"/v1/requests/{ids.show('req', asked)}/votes"
    assert site.client.post(url, json=body, headers=site.token(site.ben)).json()["state"] == "open"


def test_who_is_enabled_again_has_to_sign_in_again_and_who_is_removed_never_comes_back(
    site: Site, boss: Person
) -> None:
    browser, token = Browser(site), site.token(site.ben)
    browser.sign_in(site.ana)
    post(site, f"/{shown(site.ana)}/disable", boss)
    post(site, f"/{shown(site.ana)}/enable", boss)
    assert browser.get("/").status_code == 303

    post(site, f"/{shown(site.ben)}/remove", boss)
    again = [post(site, f"/{shown(site.ben)}/{move}", boss) for move in ("enable", "disable", "remove")]
    anew = post(site, "", boss, {"email": "BEN@example.org"})

    assert [item.status_code for item in again] == [404, 404, 404]
    assert (anew.status_code, anew.json()["id"] == shown(site.ben)) == (201, False)
    assert site.client.get("/v1/runs", headers=token).status_code == 401


def test_another_role_or_group_signs_somebody_out_and_another_name_does_not(site: Site, boss: Person) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)

    post(site, f"/{shown(site.ana)}/change", boss, {"name": "Anna"})
    assert browser.get("/").status_code == 200
    post(site, f"/{shown(site.ana)}/change", boss, {"groups": ["finance"]})
    assert browser.get("/").status_code == 303


def given_lately(site: Site, database: Database, person: Person, *, ago: timedelta = timedelta()) -> None:
    """The person is put into `finance` now, or so long ago."""
    with ledger.transaction(site.gateway) as conn:
        roster.change(conn, "test", person.id, groups=["finance"], membership=HOUR)
    with psycopg.connect(database.owner) as conn:
        conn.execute(
            """
            UPDATE people
            SET fresh = (
                SELECT jsonb_object_agg(key, jsonb_build_array((value ->> 0)::timestamptz - %(ago)s,
                                                               (value ->> 1)::timestamptz - %(ago)s))
                FROM jsonb_each(fresh))
            WHERE id = %(id)s
            """,
            {"ago": ago, "id": person.id},
        )


def test_who_is_newly_given_a_group_does_not_decide_what_waits_already(site: Site, database: Database) -> None:
    _, [before] = site.a_waiting_run(asking(groups={"finance": 1}))
    given_lately(site, database, site.ana)
    _, [after] = site.a_waiting_run(asking(groups={"finance": 1}))

    early, late = site.vote(before, site.token(site.ana)), site.vote(after, site.token(site.ana))

    assert (early.status_code, late.status_code) == (403, 200)
    assert "after this was asked, so your vote does not count here before 20" in early.json()["detail"]


def test_an_hour_later_a_new_member_decides_that_too(site: Site, database: Database) -> None:
    _, [asked] = site.a_waiting_run(asking(groups={"finance": 1}))
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE requests SET created_at = created_at - interval '1 day'")

    given_lately(site, database, site.ana, ago=HOUR)

    assert site.vote(asked, site.token(site.ana)).status_code == 200


def test_a_new_group_takes_nothing_from_what_one_could_decide_before(site: Site, database: Database) -> None:
    _, [asked] = site.a_waiting_run(asking())

    given_lately(site, database, site.ana)

    assert site.vote(asked, site.token(site.ana)).status_code == 200


def test_a_new_member_is_not_counted_where_two_groups_must_agree(site: Site, database: Database) -> None:
    _, [asked] = site.a_waiting_run(asking(approvals=2, groups={"finance": 1, "reviewers": 1}))
    given_lately(site, database, site.ana)

    assert site.vote(asked, site.token(site.ana)).json()["state"] == "open"
    assert site.vote(asked, site.token(site.ben)).json()["state"] == "open"


def test_who_is_taken_off_and_put_back_is_new_again(site: Site, database: Database) -> None:
    given_lately(site, database, site.ana, ago=timedelta(days=30))
    _, [asked] = site.a_waiting_run(asking(groups={"finance": 1}))
    with ledger.transaction(site.gateway) as conn:
        roster.disable(conn, "test", site.ana.id)
        roster.enable(conn, "test", site.ana.id, membership=HOUR)

    assert site.vote(asked, site.token(site.ana)).status_code == 403


def test_taking_the_last_of_a_group_away_shows_at_once_on_what_waits_for_it(site: Site, database: Database) -> None:
    from banksman_gateway import silence

    given_lately(site, database, site.ana, ago=timedelta(days=30))
    _, [asked] = site.a_waiting_run(asking(groups={"finance": 1}))
    assert silence.act(site.parts) == 0

    with ledger.transaction(site.gateway) as conn:
        roster.disable(conn, "test", site.ana.id)
    silence.act(site.parts)
    found = site.client.get(f"/v1/requests/{ids.show('req', asked)}", headers=site.token(site.ben)).json()

    assert found["unreachable_since"] is not None


def test_the_page_does_what_the_api_does(site: Site, boss: Person) -> None:
    browser = Browser(site)
    browser.sign_in(boss)
    [new] = [form for form in forms_in(browser.get("/people").text) if form.action == "/people"]

    added = browser.send(filled(new, {"email": "eve@example.org", "role-reviewer": "yes", "groups": "finance, legal"}))
    twice = browser.send(filled(new, {"email": "EVE@example.org", "role-reviewer": "yes"}))
    place = added.headers["location"]
    [change] = [form for form in forms_in(browser.get(place).text) if form.action.endswith("/change")]
    changed = browser.send(filled(change, {"role-operator": "yes", "groups": "legal"}))
    foreign = browser.send(filled(change, {"role-admin": "yes"}), headers={"Sec-Fetch-Site": "cross-site"})
    unsigned = browser.send(filled(change, {"role-admin": "yes", "form": "x"}))

    assert [item.status_code for item in (added, twice, changed, foreign, unsigned)] == [303, 409, 303, 403, 403]
    assert "here already" in twice.text
    with ledger.transaction(site.gateway) as conn:
        eve = staff.by_email(conn, "eve@example.org")
    assert eve is not None
    assert (sorted(eve.roles), sorted(eve.groups)) == (["operator"], ["legal"])
    for move, state in (("disable", True), ("enable", False), ("remove", True)):
        [form] = [form for form in forms_in(browser.get(place).text) if form.action.endswith(f"/{move}")]
        assert browser.send(form).status_code == 303
        with ledger.transaction(site.gateway) as conn:
            assert people.get(conn, eve.id).disabled is state
    assert "eve@example.org" not in browser.get("/people").text
    assert "removed" in browser.get(place).text


def test_a_form_from_before_somebody_elses_change_gives_nothing_back(site: Site, boss: Person) -> None:
    browser = Browser(site)
    browser.sign_in(boss)
    place = f"/people/{shown(site.ana)}"
    [stale] = [form for form in forms_in(browser.get(place).text) if form.action.endswith("/change")]
    post(site, f"{place.removeprefix('/people')}/change", boss, {"roles": ["auditor"]})

    answer = browser.send(filled(stale, {"name": "Anna", "role-reviewer": "yes"}))

    assert answer.status_code == 409
    assert "changed this person meanwhile" in answer.text
    with ledger.transaction(site.gateway) as conn:
        now = people.get(conn, site.ana.id)
    assert (now.name, sorted(now.roles)) == ("Ana", ["auditor"])
    [fresh] = [form for form in forms_in(answer.text) if form.action.endswith("/change")]
    assert browser.send(filled(fresh, {"name": "Anna", "role-auditor": "yes"})).status_code == 303


def test_an_account_leads_to_how_its_person_is_told(site: Site) -> None:
    browser = Browser(site)
    browser.sign_in(site.ana)

    assert 'href="/preferences"' in browser.get("/account").text
    assert browser.get("/preferences").status_code == 200


def test_everybody_sees_and_ends_their_own_sessions(site: Site) -> None:
    here, elsewhere = Browser(site), Browser(site)
    here.sign_in(site.ana)
    elsewhere.sign_in(site.ana)
    forms = [form for form in forms_in(here.get("/account").text) if form.action == "/account/sign-out"]

    other = [form for form in forms if "session" in form.fields][-1:]
    assert len(forms) == 3
    older = here.send(other[0])
    alive = [browser.get("/").status_code for browser in (here, elsewhere)]
    assert (older.status_code, sorted(alive)) == (303, [200, 303])

    left = here if alive[0] == 200 else elsewhere
    form = [form for form in forms_in(left.get("/account").text) if form.fields.keys() == {"form"}][-1]
    left.send(form)
    assert left.get("/").status_code == 303


def test_nobody_ends_the_sessions_of_another(site: Site) -> None:
    ana, ben = Browser(site), Browser(site)
    ana.sign_in(site.ana)
    ben.sign_in(site.ben)
    [one, _] = [form for form in forms_in(ana.get("/account").text) if form.action == "/account/sign-out"]
    token = form_in_account(ben)

    ben.send(Form("/account/sign-out", {"form": token, "session": one.fields["session"]}))
    assert post(site, f"/{shown(site.ana)}/sign-out", site.ben).status_code == 403

    assert ana.get("/").status_code == 200
    assert post(site, f"/{shown(site.ana)}/sign-out", site.ana).status_code == 200
    assert ana.get("/").status_code == 303


def form_in_account(browser: Browser) -> str:
    return forms_in(browser.get("/account").text)[-1].fields["form"]


def test_a_key_is_shown_once_and_works_and_two_of_a_name_may_count(site: Site, boss: Person) -> None:
    headers = site.token(boss) | {"Idempotency-Key": "one"}
    body = {"name": "ci", "scopes": ["runs:read"], "days": 7}

    made = site.client.post("/v1/keys", json=body, headers=headers)
    again = site.client.post("/v1/keys", json=body, headers=headers)
    rest = [site.client.post("/v1/keys", json=body, headers=site.token(boss)).status_code for _ in range(2)]
    key = made.json()

    assert (made.status_code, again.status_code, again.json()["key"], rest) == (201, 201, None, [201, 409])
    works = {"Authorization": f"Bearer {key['key']}"}
    assert site.client.get("/v1/runs", headers=works).status_code == 200
    listed = site.client.get("/v1/keys", headers=site.token(boss))
    with ledger.transaction(site.gateway) as conn:
        everything = conn.execute("SELECT body FROM answers UNION ALL SELECT body::text::bytea FROM audit_events")
        assert not any(key["key"].split("_")[3].encode() in row[0] for row in everything.fetchall())
    assert key["key"] not in listed.text
    assert site.client.post(f"/v1/keys/{key['id']}/revoke", headers=site.token(boss)).json()["live"] is False
    assert site.client.get("/v1/runs", headers=works).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": "k", "scopes": ["votes"]},
        {"name": "k", "scopes": ["people"]},
        {"name": "k", "scopes": []},
        {"name": "k", "scopes": ["x"]},
        {"name": "k", "scopes": ["runs:read"], "days": 366},
        {"name": "k", "scopes": ["runs:read"], "days": True},
        {"name": "k", "scopes": ["runs:read"], "owner": "ana"},
        {"name": "", "scopes": ["runs:read"]},
    ],
)
def test_a_key_that_cannot_be_is_not_made(site: Site, boss: Person, body: Any) -> None:
    assert site.client.post("/v1/keys", json=body, headers=site.token(boss)).status_code == 422


def test_keys_are_made_and_revoked_on_their_page(site: Site, boss: Person) -> None:
    browser = Browser(site)
    browser.sign_in(boss)
    [new] = [form for form in forms_in(browser.get("/keys").text) if form.action == "/keys"]

    made = browser.send(
        filled(new, {"name": "cron", "scope-runs:read": "yes", "days": "30", "owner": "ana@example.org"})
    )
    wrong = [
        browser.send(filled(new, {"name": "cron", "days": days, "scope-runs:read": "yes"}))
        for days in ("0", "9999", "")
    ]

    assert (made.status_code, [item.status_code for item in wrong]) == (200, [422] * 3)
    text = made.text.partition("<pre>")[2].partition("</pre>")[0]
    headers = {"Authorization": f"Bearer {text}"}
    assert site.client.get("/v1/runs", headers=headers).status_code == 200
    assert text not in browser.get("/keys").text
    revoke = [form for form in forms_in(browser.get("/keys").text) if form.action.endswith("/revoke")]
    assert [browser.send(form).status_code for form in revoke] == [303]
    assert site.client.get("/v1/runs", headers=headers).status_code == 401


@pytest.mark.parametrize("way", ["page", "api"])
@pytest.mark.parametrize("path", ["/people", "/people/{ana}/disable", "/keys"])
def test_who_is_disabled_while_their_change_arrives_changes_nothing(
    site: Site, boss: Person, path: str, way: str
) -> None:
    site.a_person("other@example.org", "admin")
    browser, headers, path = Browser(site), site.token(boss), path.format(ana=shown(site.ana))
    browser.sign_in(boss)
    fields = {"email": "new@example.org", "role-reviewer": "yes", "name": "k", "days": "1", "scope-runs:read": "yes"}
    token = browser.form("/people").fields["form"]
    body = {"name": "k", "scopes": ["runs:read"]} if path == "/keys" else {"email": "new@example.org"}

    def change() -> Response:
        if way == "page":
            return browser.send(Form(path, {"form": token} | fields))
        return site.client.post(f"/v1{path}", json=None if "disable" in path else body, headers=headers)

    with ThreadPoolExecutor(1) as pool:
        with ledger.transaction(site.gateway) as conn:
            staff.hold(conn)
            answer = pool.submit(change)
            waiter = threading.Event()
            assert any(_waits(site) or waiter.wait(0.02) for _ in range(500))
            roster.disable(conn, "owner", boss.id)
        came = answer.result()

    assert came.status_code in {303, 401}
    assert way == "api" or came.headers.get("location", "/sign-in").startswith("/sign-in")
    assert [(who, what) for who, what, *_ in told(site)] == [("owner", "reviewer.disabled")]
    with ledger.transaction(site.gateway) as conn:
        assert all(key.name != "k" for key in keys.everything(conn))


def _waits(site: Site) -> bool:
    with ledger.transaction(site.worker) as conn:
        held = "locktype = 'advisory' AND NOT granted AND datname = current_database()"
        found = conn.execute(f"SELECT FROM pg_locks JOIN pg_database ON oid = database WHERE {held}").fetchone()
    return found is not None


def test_the_setting_says_how_long_a_membership_is_new(
    site: Site, gateway_settings: GatewaySettings, boss: Person
) -> None:
    made = app.create(gateway_settings.model_copy(update={"membership_seconds": 0}))
    with TestClient(made, base_url="http://localhost:8420") as client:
        client.post(f"/v1/people/{shown(site.ana)}/change", json={"groups": ["a"]}, headers=site.token(boss))
    post(site, f"/{shown(site.ana)}/change", boss, {"groups": ["a", "b"]})

    with ledger.transaction(site.gateway) as conn:
        fresh = people.get(conn, site.ana.id).fresh
    spans = {group: until - at for group, (at, until) in fresh.items()}
    assert spans == {"a": timedelta(), "b": HOUR}
