"""Auditors read everything and change nothing: every address of the gateway, and every call that changes something."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from httpx2 import Request, Response

from banksman import ledger
from tests.gateway.browser import Browser, Form, forms_in, routes_of
from tests.gateway.scenes import Site
from tests.gateway.test_every_route import addresses, everything, live
from tests.gateway.test_everything_is_told import TOLD, Acts

__all__ = ["live"]

# Nobody is let in here by a role, or only to write.
OTHERS = (
    "/requests/{request_id}/edit",
    "/internal/",
    "/l/{token}",
    "/v1/tokens",
    "/sign-in",
    "/healthz",
    "/readyz",
    "/metrics",
)
# What everybody may do for themselves.
OWN = {"PUT /v1/me/preferences", "POST /v1/absences", "DELETE /v1/absences/{absence_id}", "POST /v1/notices/test"}
# Settled meanwhile, or answered row by row.
CONFLICT = {"POST /v1/requests/{request_id}/votes", "POST /v1/requests/{request_id}/withdraw", "POST /v1/votes"}


def test_an_auditor_reads_at_every_address(site: Site, live: Mapping[str, list[str]]) -> None:
    auditor = site.a_person("eve@example.org", "auditor")
    browser, token = Browser(site), site.token(auditor)
    browser.sign_in(auditor)
    refused: list[str] = []
    read = 0
    for pattern, methods in routes_of(site):
        if "GET" not in methods or pattern.startswith(OTHERS) or pattern.endswith("/events"):
            continue
        for path in addresses(site, live)[pattern]:
            answer = site.client.get(path, headers=token) if pattern.startswith("/v1/") else browser.get(path)
            read += 1
            if answer.status_code in (401, 403):
                refused.append(f"{path}: {answer.text[:100]}")

    assert refused == [], "\n".join(refused)
    assert read >= 40


def test_whatever_changes_something_is_refused_to_an_auditor(
    site: Site, owner_pool: ledger.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts, auditor = Acts(site), site.token(site.a_person("eve@example.org", "auditor"))
    sent: list[Request] = []
    send = site.client.send

    def kept(request: Request, **more: object) -> Response:
        sent.append(request)
        return send(request, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(site.client, "send", kept)
    let_in: list[str] = []
    for address, (_, act) in TOLD.items():
        if address in OWN:
            continue
        sent.clear()
        act(acts)
        last = [request for request in sent if request.method not in ("GET", "HEAD")][-1]
        before = everything(owner_pool)
        answer = site.client.request(
            last.method,
            last.url,
            content=last.content,
            headers={"Content-Type": last.headers.get("content-type", "application/json"), **auditor},
        )
        refused = answer.status_code == 403 or address in CONFLICT
        if not refused or everything(owner_pool) != before:
            let_in.append(f"{address}: {answer.status_code} {answer.text[:100]}")

    assert let_in == [], "\n".join(let_in)


def test_no_form_changes_anything_for_an_auditor(
    site: Site, live: Mapping[str, list[str]], owner_pool: ledger.Pool
) -> None:
    auditor = site.a_person("eve@example.org", "auditor")
    browser = Browser(site)
    browser.sign_in(auditor)
    token = forms_in(browser.get("/account").text)[-1].fields["form"]
    own = ("/sign-in", "/sign-out", "/account/", "/preferences", "/away")
    before = everything(owner_pool)

    tried = 0
    for pattern, methods in routes_of(site):
        if "POST" not in methods or pattern.startswith(("/v1/", "/internal/", *own)):
            continue
        for path in addresses(site, live)[pattern]:
            fields = {"form": token, "email": "x@example.org", "name": "x", "role-admin": "yes", "reason": "x"}
            answer = browser.send(Form(path, fields | {"verdict": "approve", "revision": "1"}))
            assert answer.status_code in (403, 404, 409, 422), (path, answer.status_code)
            tried += 1

    assert everything(owner_pool) == before
    assert tried >= 10
