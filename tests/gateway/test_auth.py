"""Who gets in, what they may see, and that no answer leaves without its envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from banksman import ids, ledger, tokens
from banksman.ledger import keys, staff
from banksman.settings import GatewaySettings
from banksman_gateway import app
from tests.gateway.scenes import Site

ADDRESSES = [
    "/v1/runs",
    "/v1/runs/run_" + "0" * 32,
    "/v1/requests",
    "/v1/nothing",
    "/v1/openapi.json",
    "/healthz",
    "/readyz",
    "/metrics",
    "/sign-in",
    "/nothing",
    "/l/bk1.k1.x.y",
]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer nonsense",
        "Basic YTpi",
        pytest.param(f"Bearer {tokens.mint('key').text}", id="an unknown key"),
        pytest.param(f"Bearer {tokens.mint('tok').text}", id="an unknown token"),
    ],
)
def test_every_bad_credential_gets_the_same_answer(site: Site, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}

    answer = site.client.get("/v1/runs", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {
        "type": "urn:banksman:problem:not-signed-in",
        "title": "No valid credential",
        "status": 401,
        "detail": "Send a valid API key or personal token as `Authorization: Bearer …`.",
    }


def test_a_secret_that_is_not_the_handles_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    text = site.key("runs:read")["Authorization"].removeprefix("Bearer ")
    handle = text.split("_")[2]
    monkeypatch.setattr("secrets.token_hex", _always(handle))
    forged = tokens.mint("key").text

    answer = site.client.get("/v1/runs", headers={"Authorization": f"Bearer {forged}"})

    read = tokens.read(forged)
    assert read is not None
    assert read[0] == handle
    assert answer.status_code == 401


def _always(text: str) -> Callable[[int], str]:
    return lambda _: text


def test_a_revoked_key_and_a_disabled_person_are_out_at_once(site: Site) -> None:
    key, token = site.key("runs:read"), site.token(site.ana)
    assert site.client.get("/v1/runs", headers=key).status_code == 200
    assert site.client.get("/v1/runs", headers=token).status_code == 200

    with ledger.transaction(site.gateway) as conn:
        found = keys.find(conn, key["Authorization"].split("_")[2])
        assert found is not None
        keys.revoke(conn, found[1].id)
        staff.disable(conn, site.ana.id)

    assert site.client.get("/v1/runs", headers=key).status_code == 401
    assert site.client.get("/v1/runs", headers=token).status_code == 401


@pytest.mark.parametrize(
    ("method", "url", "scope"),
    [
        ("POST", "/v1/runs", "runs:submit"),
        ("GET", "/v1/runs", "runs:read"),
        ("GET", "/v1/requests", "requests:read"),
        ("POST", "/v1/runs/run_" + "0" * 32 + "/cancel", "runs:cancel"),
    ],
)
def test_a_key_does_only_what_its_scopes_say(site: Site, method: str, url: str, scope: str) -> None:
    others = {"runs:submit", "runs:read", "requests:read", "runs:cancel", "requests:answer"}
    headers = site.key(*(others - {scope}))

    answer = site.client.request(
        method, url, json={"agent": "plain", "prompt": "x"} if method == "POST" else None,
        headers=headers,
    )  # fmt: skip

    assert answer.status_code == 403
    assert scope in answer.json()["detail"]


def test_who_has_no_role_sees_their_own_runs_alone(site: Site) -> None:
    carl = site.a_person("carl@example.org")
    own, [own_request] = site.a_waiting_run(requester=carl)
    other, [other_request] = site.a_waiting_run(requester=site.ana)
    headers = site.token(carl)

    runs_ = site.client.get("/v1/runs", headers=headers).json()["items"]
    requests_ = site.client.get("/v1/requests", headers=headers).json()["items"]

    assert [run["id"] for run in runs_] == [ids.show("run", own)]
    assert [request["id"] for request in requests_] == [ids.show("req", own_request)]
    for rest in ("", "/messages", "/files", "/timeline", "/events"):
        url = f"/v1/runs/{ids.show('run', other)}{rest}"
        assert site.client.get(url, headers=headers).status_code == 404
    url = f"/v1/requests/{ids.show('req', other_request)}"
    assert site.client.get(url, headers=headers).status_code == 404
    assert site.client.get("/v1/requests/events", headers=headers).status_code == 403
    cancelled = site.client.post(f"/v1/runs/{ids.show('run', other)}/cancel", headers=headers)
    assert cancelled.status_code == 404


def test_a_tokens_scopes_narrow_its_person(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()

    answer = site.vote(request_id, site.token(site.ana, "requests:read"))

    assert answer.status_code == 403


def test_a_cookie_opens_nothing_here(site: Site) -> None:
    text = site.key("runs:read")["Authorization"].removeprefix("Bearer ")

    answer = site.client.get("/v1/runs", headers={"Cookie": f"session={text}; __Host-session={text}"})

    assert answer.status_code == 401


def test_every_answer_carries_the_security_headers(site: Site) -> None:
    for url in ADDRESSES:
        for method in ("GET", "POST", "PATCH"):
            _must_be_sealed(site.client.request(method, url, follow_redirects=False).headers)


def _must_be_sealed(headers: Mapping[str, str]) -> None:
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-robots-tag"] == "noindex"
    assert len(headers["x-request-id"]) == 32
    assert "strict-transport-security" not in headers


def test_a_break_inside_is_told_without_its_inside(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("banksman.ledger.lists.of_runs", broken)

    with capture_logs() as logged:
        answer = site.client.get("/v1/runs", headers=site.key("runs:read"))

    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["An endpoint broke."]
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:banksman:problem:internal-error")
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_another_host_name_is_refused_but_for_probes(site: Site) -> None:
    elsewhere = {"Host": "evil.example"}

    assert site.client.get("/v1/runs", headers=elsewhere).status_code == 421
    assert site.client.get("/sign-in", headers=elsewhere).status_code == 421
    assert site.client.get("/healthz", headers=elsewhere).status_code == 200
    assert site.client.get("/healthz", headers={"Host": "127.0.0.1:8420"}).status_code == 200
    assert site.client.get("/v1/runs", headers={"Host": "127.0.0.1:8420"}).status_code == 401


def test_behind_https_loopback_names_are_refused_and_browsers_told_to_stay(gateway_settings: GatewaySettings) -> None:
    public = gateway_settings.model_copy(update={"public_url": "https://banksman.example"})

    with TestClient(app.create(public), base_url="https://banksman.example") as client:
        answer = client.get("/v1/runs")
        local = client.get("/v1/runs", headers={"Host": "localhost:8420"})

    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert (answer.status_code, local.status_code) == (401, 421)


def test_the_api_publishes_its_description(site: Site) -> None:
    described = site.client.get("/v1/openapi.json").json()

    assert set(described["paths"]) >= {
        "/v1/runs",
        "/v1/runs/{run_id}",
        "/v1/runs/{run_id}/files/{path}",
        "/v1/requests/{request_id}/votes",
        "/v1/votes",
    }
    assert {"Run", "Request", "Submission"} <= set(described["components"]["schemas"])
    assert "application/problem+json" in described["paths"]["/v1/runs"]["post"]["responses"]["4XX"]["content"]
