"""Every address of the gateway: what only reads changes nothing, and each answer keeps itself to itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from banksman import ids, ledger
from banksman.states import RequestState, Tier
from banksman_gateway import forms, sessions
from tests.gateway.browser import Browser, Form, forms_in, link_of, notice_of, page_of, routes_of, stored
from tests.gateway.scenes import NOTIFIER_TOKEN, Site, asking

SAFE = ("GET", "HEAD", "OPTIONS")
# When a thing was last seen is remembered, and nothing hangs on it but how long it counts.
SEEN = ("seen_at", "last_used_at")
UNREAD = {"migrations", "schemas"}


def everything(pool: ledger.Pool) -> dict[str, Any]:
    """All rows of all tables, but for when something was last seen."""
    with ledger.transaction(pool) as conn:
        tables = [
            row[0]
            for row in conn.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            )
            if row[0] not in UNREAD
        ]
        return {
            table: conn.execute(
                f"SELECT array_agg(row ORDER BY row) FROM (SELECT (to_jsonb(t) - %s::text[])::text FROM {table} t)"
                " AS found (row)".encode(),
                (list(SEEN),),
            ).fetchone()
            for table in tables
        }


@pytest.fixture
def live(site: Site) -> Mapping[str, list[str]]:
    """Something real for each part of an address; a new kind of part has to be added here."""
    waiting, [open_] = site.a_waiting_run(asking("c1", tier=Tier.LOW))
    _, [decided] = site.a_waiting_run(asking("c1"), requester=site.ben)
    assert site.vote(decided, site.token(site.ana), verdict="deny", stop_run=True).status_code == 200
    files = site.a_run_with_files({"/a.txt": b"hello"})
    batch = site.client.post(
        "/v1/batches",
        content=b'{"agent": "plain", "prompt": "x"}\n',
        headers=site.key("runs:submit") | {"Content-Type": "application/x-ndjson"},
    )
    assert batch.status_code < 300, batch.text
    endpoint = site.client.post(
        "/v1/endpoints",
        json={"url": "https://hooks.acme.org/"},
        headers=site.token(site.a_person("ada@example.org", "admin")),
    )
    assert endpoint.status_code < 300, endpoint.text
    away = {"stand_in": site.ana.email, "until_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    absence = site.client.post("/v1/absences", json=away, headers=site.token(site.ben))
    assert absence.status_code < 300, absence.text
    _, [low] = site.a_waiting_run(asking("c1", tier=Tier.LOW))
    assert site.vote(low, site.token(site.ana)).status_code == 200
    granted = {"request_id": ids.show("req", low), "most": 5}
    grant = site.client.post("/v1/grants", json=granted, headers=site.token(site.ana))
    assert grant.status_code < 300, grant.text
    keys = site.client.get("/v1/keys", headers=site.token(site.a_person("aud@example.org", "auditor"))).json()["items"]
    return {
        "run_id": [ids.show("run", run_id) for run_id in (waiting, files)],
        "request_id": [ids.show("req", request_id) for request_id in (open_, decided)],
        "batch_id": [batch.json()["id"]],
        "person_id": [ids.show("per", site.ana.id)],
        "key_id": [keys[0]["id"]],
        "token": [link_of(site, notice_of(site, open_)).removeprefix("/l/")],
        "path:path": ["a.txt"],
        "name": ["plain"],
        "move": ["cancel", "pause", "disable", "approve", "withdraw"],
        "stamp": ["x"],
        "number": ["1"],
        "day": ["2026-11-22"],
        "endpoint_id": [endpoint.json()["id"]],
        "absence_id": [absence.json()["id"]],
        "notice_id": [ids.show("ntc", notice_of(site, open_))],
        "grant_id": [grant.json()["id"]],
    }


def addresses(site: Site, live: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Every route, each with its addresses."""
    found: dict[str, list[str]] = {}
    for pattern, _ in routes_of(site):
        paths: list[str] = [pattern]
        names: list[str] = re.findall(r"\{([^}]+)\}", pattern)
        for name in names:
            assert name in live, f"Say in `live` what {{{name}}} of {pattern} is."
            part = f"{{{name}}}"
            paths = [path.replace(part, value) for path in paths for value in live[name]]
        found[pattern] = paths
    return found


def test_no_safe_method_on_any_route_changes_anything(
    site: Site, live: Mapping[str, list[str]], owner_pool: ledger.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    boss = site.a_person("boss@example.org", "admin", "reviewer", "operator", "auditor")
    browser = Browser(site)
    browser.sign_in(boss)
    browser.get(f"/l/{live['token'][0]}")
    bearers = [site.token(boss)["Authorization"], site.key("runs:read", "requests:read")["Authorization"]]
    bearers.append(f"Bearer {NOTIFIER_TOKEN}")
    found = addresses(site, live)
    streams = [path for pattern, paths in found.items() for path in paths if pattern.endswith("/events")]
    calls = 0
    before = everything(owner_pool)

    for pattern, paths in found.items():
        for path in paths if not pattern.endswith("/events") else []:
            for query in ("", "?verdict=approve&revision=1&code=123456&move=remove&next=/"):
                for method in SAFE:
                    for bearer in bearers:
                        answer = browser.http.request(method, path + query, headers={"Authorization": bearer})
                        assert answer.status_code < 500, (method, path, answer.text)
                        assert_sealed(answer.headers)
                        calls += 1
    site.parts.pulse.end()  # or a stream would never end
    for path in streams:
        for method in SAFE:
            browser.http.request(method, path, headers={"Authorization": bearers[0]})
            calls += 1

    assert everything(owner_pool) == before
    with capsys.disabled():
        print(f"\nroutes swept: {len(found)}, with {calls} calls of {', '.join(SAFE)}")  # noqa: T201
    assert len(found) >= 60


def assert_sealed(headers: Mapping[str, str]) -> None:
    """The headers that every answer has, errors too."""
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-robots-tag"] == "noindex"
    assert headers["cache-control"] == "no-store" or "max-age" in headers["cache-control"]


def test_no_form_route_takes_a_post_from_elsewhere_or_without_its_token(
    site: Site, live: Mapping[str, list[str]], owner_pool: ledger.Pool
) -> None:
    boss = site.a_person("boss@example.org", "admin", "reviewer", "operator")
    browser = Browser(site)
    browser.sign_in(boss)
    token = forms_in(browser.get("/account").text)[-1].fields["form"]
    before = everything(owner_pool)

    tried = 0
    for pattern, methods in routes_of(site):
        if "POST" not in methods or pattern.startswith(("/v1/", "/internal/")):
            continue
        for path in addresses(site, live)[pattern]:
            fields = {"form": token, "email": "eve@example.org", "name": "x", "verdict": "approve", "role-admin": "yes"}
            for site_header in ("cross-site", "same-site"):
                answer = browser.send(Form(path, fields), headers={"Sec-Fetch-Site": site_header})
                assert answer.status_code == 403, (path, answer.status_code)
            answer = browser.send(Form(path, fields), headers={"Origin": "https://evil.example"})
            assert answer.status_code == 403
            assert_sealed(answer.headers)
            if pattern not in ("/sign-in", "/sign-in/code"):
                for wrong in ("", "x", token[:-1], token + "A"):
                    answer = browser.send(Form(path, fields | {"form": wrong}))
                    assert answer.status_code in (403, 404, 422), (path, answer.status_code)
            tried += 1

    assert tried >= 15
    assert everything(owner_pool) == before


def test_every_form_is_read_before_it_is_asked_who_is_signed_in(site: Site) -> None:
    seen = 0
    for mounted in cast("Any", site.client).app.routes:
        inner = getattr(mounted, "original_router", None)
        for route in [mounted] if inner is None else inner.routes:
            asked = [one.call for one in getattr(getattr(route, "dependant", None), "dependencies", ())]
            for who in (sessions.required, sessions.present):
                if forms.read in asked and who in asked:
                    assert asked.index(forms.read) < asked.index(who), route.path
                    seen += 1

    assert seen >= 15


def test_the_api_takes_no_cookie(site: Site, live: Mapping[str, list[str]], owner_pool: ledger.Pool) -> None:
    boss = site.a_person("boss@example.org", "admin", "reviewer", "operator")
    browser = Browser(site)
    browser.sign_in(boss)
    before = everything(owner_pool)

    for pattern, methods in routes_of(site):
        if pattern.startswith("/v1/") and not pattern.startswith(("/v1/tokens", "/v1/openapi.json")):
            for path in addresses(site, live)[pattern]:
                for method in methods - {"HEAD", "OPTIONS"}:
                    answer = browser.http.request(method, path, json={} if method == "POST" else None)
                    assert answer.status_code in (401, 415, 422), (method, path, answer.status_code)

    assert everything(owner_pool) == before


def crawl(scanner: Browser, start: str, *, limit: int = 80) -> list[str]:
    """Follow every link of ours from here, as often as it is met; submit every form that is found, in three ways."""
    todo, pages = [start], dict[str, int]()
    while todo and len(pages) < limit:
        path = todo.pop(0)
        if pages.get(path, 0) >= 2:
            continue
        pages[path] = pages.get(path, 0) + 1
        scanner.http.head(path)
        answer = scanner.get(path)
        while answer.status_code == 303:
            answer = scanner.get(answer.headers["location"])
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        todo += list(re.findall(r'(?:href|src)="(/[^"]*)"', answer.text))
        for form in forms_in(answer.text):
            boxes = dict.fromkeys(re.findall(r'type="(?:checkbox|radio)" name="([^"]+)"', answer.text), "yes")
            filled = {name: value or "000000" for name, value in form.fields.items()}
            guess = {"code": "123456", "email": "ana@example.org", "reason": "ok", "answer": "ok"}
            for fields in (form.fields, filled | boxes, form.fields | guess):
                for headers in ({"Sec-Fetch-Site": "same-origin"}, {}):
                    after = scanner.http.post(form.action, data=fields, headers=headers)
                    assert after.status_code < 500
                    if after.status_code == 303:
                        todo.append(after.headers["location"])
    return list(pages)


@pytest.mark.parametrize("tier", [Tier.LOW, Tier.MEDIUM])
def test_a_scanner_that_follows_submits_and_guesses_decides_nothing_and_then_a_person_does(
    site: Site, tier: Tier
) -> None:
    own = Browser(site)
    own.sign_in(site.ana)
    own.http.cookies.delete("session")
    _, [request_id] = site.a_waiting_run(asking(tier=tier))
    link = link_of(site, notice_of(site, request_id))

    seen = [crawl(Browser(site), link) for _ in range(2)]

    assert min(map(len, seen)) >= 3
    assert stored(site, request_id).state is RequestState.OPEN
    with ledger.transaction(site.gateway) as conn:
        assert conn.execute("SELECT count(*) FROM votes").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    own.sign_in(site.ana)
    answer = own.send(form_in_request(own, request_id))
    assert answer.status_code == 303
    assert stored(site, request_id).state is RequestState.APPROVED


def form_in_request(browser: Browser, request_id: Any) -> Form:
    return browser.form(page_of(request_id), "approve")
