"""How people hear of things, and what becomes of messages and webhooks: over HTTP and on a page."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from banksman import ids, ledger
from banksman.ids import NoticeId
from banksman.ledger import audit, preferences
from banksman_gateway import notices as notices_door
from tests.gateway.browser import Browser, Words, forms_in
from tests.gateway.scenes import Site, notices_of

ME = "/v1/me/preferences"


def put(site: Site, **wanted: Any) -> tuple[int, dict[str, Any]]:
    answer = site.client.put(ME, json=wanted, headers=site.token(site.ana))
    return answer.status_code, answer.json()


def test_a_person_says_how_to_be_told_and_secrets_are_not_told_back(site: Site) -> None:
    before = site.client.get(ME, headers=site.token(site.ana)).json()
    quiet = {"begins": "22:00", "ends": "07:00", "zone": "Europe/Berlin"}

    status, changed = put(site, apprise=["slack://T/secret/path"], quiet=quiet, gather_low_minutes=90)
    _, kept = put(site, email=False, quiet=quiet)

    assert (before["email"], before["apprise"], before["quiet"]) == (True, [], None)
    assert (status, changed["apprise"], changed["quiet"]) == (200, ["slack://…"], quiet)
    assert (kept["email"], kept["apprise"], kept["gather_low_minutes"]) == (False, ["slack://…"], None)
    with ledger.transaction(site.gateway) as conn:
        assert preferences.get(conn, site.ana.id).urls == ("slack://T/secret/path",)
        told = [event for event in audit.since(conn, (0, 0)) if event.action == "preferences.changed"]
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"email": False}, "One way must stay"),
        ({"apprise": ["mailto://a:b@example.org"]}, "not called over HTTPS"),
        ({"apprise": ["slack://a/b/c?template=/etc/passwd"]}, "read a file"),
        ({"apprise": ["discord://1/t/?a=b;template=/etc/passwd"]}, "read differently"),
        ({"apprise": ["discord://1/t/#?template=/etc/passwd"]}, "read differently"),
        ({"apprise": ["discord://1/t/?template%20=/etc/passwd"]}, "read a file"),
        ({"apprise": ["nonsense"]}, "URL 1"),
        ({"apprise": ["slack://a/b/c\u202e"]}, "URL 1"),
        ({"quiet": {"begins": "22:00", "ends": "22:00", "zone": "UTC"}}, "never end"),
        ({"quiet": {"begins": "22:00", "ends": "07:00", "zone": "Mars/Olympus"}}, "no time zone"),
        ({"quiet": {"begins": "22:00", "ends": "07:00", "zone": "../../etc/passwd"}}, "no time zone"),
        ({"quiet": {"begins": "25:00", "ends": "07:00", "zone": "UTC"}}, ""),
        ({"gather_low_minutes": -1}, ""),
        ({"gather_low_minutes": 1441}, ""),
        ({"nonsense": 1}, ""),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(site: Site, wanted: dict[str, Any], words: str) -> None:
    status, answer = put(site, **wanted)

    assert status == 422
    assert words in answer["detail"]


def test_machines_and_narrow_tokens_change_nobodys_preferences(site: Site) -> None:
    for headers in (site.key("requests:read", "runs:read"), site.token(site.ana, "requests:read"), {}):
        assert site.client.put(ME, json={"email": True}, headers=headers).status_code in (401, 403)


def test_the_page_shows_the_preferences_and_keeps_what_was_sent(site: Site) -> None:
    ana = Browser(site)
    ana.sign_in(site.ana)
    [form] = [form for form in forms_in(ana.get("/preferences").text) if form.action == "/preferences"]

    sent = ana.http.post(
        "/preferences",
        data=form.fields
        | {"begins": "22:00", "ends": "06:30", "zone": "Asia/Tokyo", "email": "yes", "apprise": "slack://a/b/canary"},
    )
    page = ana.get("/preferences").text
    wrong = ana.http.post("/preferences", data=form.fields | {"begins": "late", "ends": "06:30", "email": "yes"})
    forged = ana.http.post("/preferences", data={"email": "yes"})

    assert sent.status_code == 303
    assert 'value="Asia/Tokyo"' in page
    assert "slack://…" in page
    assert "canary" not in page
    assert (wrong.status_code, forged.status_code) == (422, 403)
    assert "Quiet hours are two times" in Words(wrong.text).text


def a_dead_notice(site: Site) -> NoticeId:
    _, [request_id] = site.a_waiting_run()
    with ledger.transaction(site.gateway) as conn:
        [notice] = notices_of(conn, request_id)
        conn.execute(
            "UPDATE notices SET state = 'dead', due_at = NULL, last_error = '550 nobody', attempts = 8 WHERE id = %s",
            (notice.id,),
        )
    return notice.id


def test_dead_notices_are_listed_and_sent_once_more_by_operators_alone(site: Site) -> None:
    notice = ids.show("ntc", a_dead_notice(site))
    olga = site.token(site.a_person("olga@example.org", "operator"))

    listed = site.client.get("/v1/notices?state=dead", headers=site.token(site.ana)).json()["items"]
    refused = site.client.post(f"/v1/notices/{notice}/resend", headers=site.token(site.ana))
    resent = site.client.post(f"/v1/notices/{notice}/resend", headers=olga)
    again = site.client.post(f"/v1/notices/{notice}/resend", headers=olga)
    everything = site.client.post("/v1/notices/resend", json={}, headers=olga)

    assert [(item["id"], item["last_error"], item["to"]) for item in listed] == [
        (notice, "550 nobody", "ana@example.org")
    ]
    assert (refused.status_code, resent.status_code, again.status_code) == (403, 200, 409)
    assert (resent.json(), everything.json()) == ({"notices": [notice]}, {"notices": []})
    found = site.client.get(f"/v1/notices/{notice}", headers=olga).json()
    assert (found["state"], found["attempts"], found["last_error"]) == ("due", 0, None)


def test_notices_are_filtered_by_what_became_of_them(site: Site) -> None:
    run, [request_id] = site.a_waiting_run()
    with ledger.transaction(site.gateway) as conn:
        conn.execute("UPDATE notices SET held = 'Gathered.'")
    site.a_waiting_run()
    token = site.token(site.ana)

    def count(query: str) -> int:
        answer = site.client.get(f"/v1/notices?{query}", headers=token)
        assert answer.status_code == 200, answer.text
        return len(answer.json()["items"])

    assert [count(f"state={state}") for state in get_args(notices_door.State)] == [1, 1, 0, 0, 0, 0, 0]
    assert count(f"request_id={ids.show('req', request_id)}") == count(f"run_id={ids.show('run', run)}") == 1
    timeline = site.client.get(f"/v1/runs/{ids.show('run', run)}/timeline", headers=token).json()["items"]
    assert [moment["detail"].get("held") for moment in timeline if moment["what"] == "notice.queued"] == ["Gathered."]
    assert site.client.get("/v1/notices?state=nonsense", headers=token).status_code == 422
    stranger = site.token(site.a_person("eve@example.org"))
    assert site.client.get("/v1/notices", headers=stranger).json()["items"] == []


def test_a_test_message_is_a_notice_and_goes_to_others_for_operators_alone(site: Site) -> None:
    ana, olga = site.token(site.ana), site.token(site.a_person("olga@example.org", "operator"))
    url = "/v1/notices/test"

    mine = site.client.post(url, json={}, headers=ana).json()
    bens = site.client.post(url, json={"to": "BEN@example.org"}, headers=olga)
    refused = site.client.post(url, json={"to": "ben@example.org"}, headers=ana)
    unknown = site.client.post(url, json={"to": "nobody@example.org"}, headers=olga)
    not_there = site.client.post(url, json={"channel": "apprise"}, headers=ana)
    statuses = [site.client.post(url, json={}, headers=ana).status_code for _ in range(5)]

    assert (mine["kind"], mine["to"], mine["state"], mine["channel"]) == ("test", "ana@example.org", "due", "email")
    assert (bens.status_code, bens.json()["to"]) == (200, "ben@example.org")
    assert (refused.status_code, unknown.status_code, not_there.status_code) == (403, 404, 422)
    assert statuses == [200, 200, 200, 200, 409]


def test_an_administrator_manages_webhooks_and_sees_each_secret_once(site: Site) -> None:
    ada = site.token(site.a_person("ada@example.org", "admin"))

    made = site.client.post(
        "/v1/endpoints", json={"url": "https://hooks.acme.org/x", "events": ["run.finished"]}, headers=ada
    ).json()
    path = f"/v1/endpoints/{made['id']}"
    rotated = site.client.post(f"{path}/rotate", headers=ada).json()
    shown = site.client.get(path, headers=ada).json()
    disabled = site.client.post(f"{path}/disable", headers=ada).json()
    refused = site.client.post(f"{path}/redeliver", json={}, headers=ada)
    enabled = site.client.post(f"{path}/enable", headers=ada).json()
    redelivered = site.client.post(f"{path}/redeliver", json={}, headers=ada).json()
    site.client.post(f"{path}/remove", headers=ada)

    assert made["secret"].startswith("whsec_")
    assert rotated["secret"] not in (None, made["secret"])
    assert (shown["secret"], shown["rotating"], shown["state"]) == (None, True, "live")
    assert (disabled["state"], disabled["disabled_because"], enabled["state"]) == ("disabled", "by hand", "live")
    assert (refused.status_code, redelivered) == (409, {"deliveries": 0})
    assert site.client.get(path, headers=ada).status_code == 404
    assert site.client.get("/v1/endpoints", headers=ada).json()["items"] == []
    with ledger.transaction(site.gateway) as conn:
        told = [event for event in audit.since(conn, (0, 0)) if event.action.startswith("endpoint.")]
        stored = conn.execute("SELECT url, secret FROM endpoints").fetchone()
    assert [event.action.partition(".")[2] for event in told] == [
        *("added", "rotated", "disabled", "enabled", "redelivered", "removed")
    ]
    assert "acme" not in str(told)
    assert stored is not None
    assert b"whsec_" not in stored[1]


@pytest.mark.parametrize(
    "body",
    [
        {"url": "http://hooks.acme.org/"},
        {"url": "https://127.0.0.1/"},
        {"url": "https://metadata.google.internal/"},
        {"url": "https://u:p@hooks.acme.org/"},
        {"url": "https://hooks.acme.org:22/"},
        {"url": "https://hooks.acme.org/", "events": []},
        {"url": "https://hooks.acme.org/", "events": ["everything"]},
        {"url": ""},
        {},
    ],
)
def test_an_endpoint_that_cannot_be_called_is_refused_in_a_sentence(site: Site, body: dict[str, Any]) -> None:
    ada = site.token(site.a_person("ada@example.org", "admin"))

    assert site.client.post("/v1/endpoints", json=body, headers=ada).status_code == 422


def test_nobody_but_an_administrator_sees_or_changes_webhooks(site: Site) -> None:
    ada = site.token(site.a_person("ada@example.org", "admin"))
    body = {"url": "https://hooks.acme.org/"}
    made = site.client.post("/v1/endpoints", json=body, headers=ada).json()["id"]
    calls = [("GET", ""), ("POST", ""), ("GET", f"/{made}"), ("GET", f"/{made}/deliveries")]
    calls += [("POST", f"/{made}/{move}") for move in ("disable", "enable", "rotate", "remove", "redeliver")]

    for who in (site.token(site.ana), site.token(site.a_person("olga@example.org", "operator")), site.key("runs:read")):
        for method, path in calls:
            sent: dict[str, Any] = {"json": body if path == "" else {}} if method == "POST" else {}
            assert site.client.request(method, f"/v1/endpoints{path}", headers=who, **sent).status_code == 403


def test_the_numbers_tell_what_waits_and_what_was_given_up(site: Site) -> None:
    a_dead_notice(site)
    site.a_waiting_run()

    said = site.client.get("/metrics").text

    assert 'banksman_notices{state="dead"} 1.0' in said
    assert 'banksman_notices{state="due"} 1.0' in said
    assert 'banksman_webhooks{state="dead"} 0.0' in said
    assert "banksman_endpoints_disabled 0.0" in said
