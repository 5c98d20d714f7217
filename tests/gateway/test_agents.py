"""Pausing and resuming an agent over HTTP and on its page: who may, and what goes on meanwhile."""

from __future__ import annotations

from typing import Any

from banksman import ids, ledger
from banksman.digest import Json
from banksman.ledger import agents, runs
from banksman.records import Event
from banksman.states import RunStatus
from tests.gateway.browser import Browser, Words, forms_in
from tests.gateway.scenes import LEASE, Site


def test_an_operator_pauses_an_agent_and_resumes_it(site: Site) -> None:
    site.announce("refunds")
    olga = site.token(site.a_person("olga@example.org", "operator"))

    paused = site.client.post("/v1/agents/refunds/pause", headers=olga)
    again = site.client.post("/v1/agents/refunds/pause", headers=olga)
    listed = site.client.get("/v1/agents", headers=site.key("runs:read")).json()["items"]
    resumed = site.client.post("/v1/agents/refunds/resume", headers=olga)

    assert (paused.status_code, paused.json()["paused_by"]) == (200, "olga@example.org")
    assert again.json() == paused.json()
    assert [(agent["name"], agent["paused_at"] is not None) for agent in listed] == [
        ("plain", False),
        ("refunds", True),
    ]
    assert (resumed.status_code, resumed.json()["paused_at"]) == (200, None)
    assert [event.body for event in _told(site, "agent.paused", "agent.resumed")] == [{"agent": "refunds"}] * 2


def test_reviewers_and_machines_pause_nothing(site: Site) -> None:
    site.client.get("/v1/agents", headers=site.key("runs:read"))

    for headers in (site.token(site.ana), site.key("runs:cancel", "runs:submit", "runs:read")):
        for move in ("pause", "resume"):
            assert site.client.post(f"/v1/agents/plain/{move}", headers=headers).status_code == 403

    admin = site.token(site.a_person("ada@example.org", "admin"))
    assert site.client.post("/v1/agents/nobody/pause", headers=admin).status_code == 404
    assert site.client.post("/v1/agents/plain/pause", headers=admin).status_code == 200


def test_while_an_agent_is_paused_runs_and_votes_are_accepted_and_wait(site: Site) -> None:
    olga = site.token(site.a_person("olga@example.org", "operator"))
    waiting, [request_id] = site.a_waiting_run()
    site.client.post("/v1/agents/plain/pause", headers=olga)

    new = site.a_run()
    voted = site.vote(request_id, site.token(site.ana))

    assert voted.json()["state"] == "approved"
    with ledger.transaction(site.worker) as conn:
        assert runs.get(conn, waiting).status is RunStatus.QUEUED
        assert runs.claim(conn, new, 0, owner="w", lease=LEASE) is None
        assert runs.claim(conn, waiting, 1, owner="w", lease=LEASE) is None
    site.client.post("/v1/agents/plain/resume", headers=olga)
    site.finish(waiting)


def test_the_pages_say_that_an_agent_is_paused_and_operators_find_the_form(site: Site) -> None:
    ana, olga = Browser(site), Browser(site)
    ana.sign_in(site.ana)
    olga.sign_in(site.a_person("olga@example.org", "operator"))
    run_id = site.a_run()

    [pause] = [form for form in forms_in(olga.get("/agents").text) if form.action.startswith("/agents/")]
    assert olga.send(pause).status_code == 303
    stolen = forms_in(ana.get("/agents").text)

    assert pause.action == "/agents/plain/pause"
    assert [form.action for form in stolen] == ["/sign-out"]
    page = Words(ana.get(f"/runs/{ids.show('run', run_id)}").text).text
    assert "by olga@example.org. No step of it starts" in page
    assert ana.http.post("/agents/plain/resume", data=stolen[0].fields).status_code == 403
    [resume] = [form for form in forms_in(olga.get("/agents").text) if form.action.startswith("/agents/")]
    assert olga.send(resume).status_code == 303
    assert "paused" not in Words(ana.get(f"/runs/{ids.show('run', run_id)}").text).text


def test_gates_are_shown_under_the_policy_in_force_to_whoever_may_read_it(site: Site) -> None:
    asked: dict[str, Json] = {"verdict": "ask", "tier": "medium", "rule": "flagged", "because": "-"}
    with ledger.transaction(site.worker) as conn:
        agents.announce(
            conn, {"desk": ("1", {"issue_refund": {"effects": "unknown", **asked}, "look": {"effects": "harmless"}})}
        )
    text = '[[rule]]\nname = "never"\ntool = "issue_refund"\nthen = "deny"\nbecause = "Not here."\n'
    admin = site.token(site.a_person("ada@example.org", "admin", "reviewer"))
    before = _gates(site, site.token(site.ana))
    assert site.client.post("/v1/policy", json={"text": text}, headers=admin).status_code == 200

    seen = [_gates(site, headers) for headers in (site.token(site.ana), site.key("runs:read", "requests:read"))]
    nobody = site.a_person("nobody@example.org")
    unseen = [_gates(site, headers) for headers in (site.token(nobody), site.key("runs:read"))]

    assert before["issue_refund"]["gate"] == "tier medium (flagged)"
    for found in seen:
        refund = found["issue_refund"]
        assert (refund["verdict"], refund["tier"], refund["rule"]) == ("deny", None, "never")
        assert (refund["gate"], refund["because"]) == ("denied by rule never", "Not here.")
    assert unseen == [{"issue_refund": {"effects": "unknown"}, "look": {"effects": "harmless"}}] * 2


def test_the_page_shows_the_gates_to_whoever_may_read_the_policy(site: Site) -> None:
    with ledger.transaction(site.worker) as conn:
        agents.announce(conn, {"desk": ("1", {"<b>look</b>": {"verdict": "allow", "rule": "harmless"}})})
    ana, nobody = Browser(site), Browser(site)
    ana.sign_in(site.ana)
    nobody.sign_in(site.a_person("nobody@example.org"))

    page = ana.get("/agents").text

    assert "<td>&lt;b&gt;look&lt;/b&gt;</td><td>allowed (harmless)</td>" in page
    assert "allowed (harmless)" not in nobody.get("/agents").text


def _gates(site: Site, headers: dict[str, str]) -> dict[str, Any]:
    found = site.client.get("/v1/agents", headers=headers).json()["items"]
    [desk] = [agent for agent in found if agent["name"] == "desk"]
    return desk["tools"]


def _told(site: Site, *actions: str) -> list[Event]:
    with ledger.transaction(site.gateway) as conn:
        rows = conn.execute(
            "SELECT actor, action, body FROM audit_events WHERE action = ANY(%s) ORDER BY xid, id", (list(actions),)
        ).fetchall()
    return [Event(actor, action, body=body) for actor, action, body in rows]
