"""Every address that changes something writes an event, in the transaction of the change that it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.states import Tier
from tests.gateway.browser import Browser, routes_of
from tests.gateway.scenes import Site, asking

SAFE = {"GET", "HEAD", "OPTIONS"}
UNTOLD = {
    "POST /v1/policy/simulate": "reads only",
    "POST /groups/table": "reads only",
    "POST /internal/links": "reads only",
    "POST /v1/requests/{request_id}/looking": "a lease of two minutes that binds nobody",
    "DELETE /v1/requests/{request_id}/looking": "a lease of two minutes that binds nobody",
    "POST /v1/tokens": "asks for a code; the same row whether or not somebody has the address",
    "POST /sign-in": "asks for a code; the same row whether or not somebody has the address",
}
# The page's forms make the same calls as the API does; each has its events in the tests of its page.
PAGES = {
    "POST /agents/{name}/{move}": "agent.paused",
    "POST /batches/{batch_id}/cancel": "batch.cancelled",
    "POST /batches/{batch_id}/pause": "batch.paused",
    "POST /batches/{batch_id}/resume": "batch.resumed",
    "POST /batches/{batch_id}/retry": "batch.retried",
    "POST /away": "absence.declared",
    "POST /away/{absence_id}/end": "absence.ended",
    "POST /grants/{grant_id}/revoke": "grant.revoked",
    "POST /groups/votes": "request.approved",
    "POST /preferences": "preferences.changed",
    "POST /people": "reviewer.added",
    "POST /people/{person_id}/{move}": "reviewer.changed",
    "POST /keys": "key.made",
    "POST /keys/{key_id}/revoke": "key.revoked",
    "POST /account/sign-out": "session.ended",
    "POST /requests/{request_id}/vote": "request.approved",
    "POST /requests/{request_id}/edit": "request.revised",
    "POST /requests/{request_id}/reveal": "request.revealed",
    "POST /requests/{request_id}/{move}": "vote.withdrawn",
    "POST /runs/{run_id}/{move}": "run.cancelled",
    "POST /sign-in/code": "session.started",
    "POST /sign-out": "session.ended",
    "POST /v1/tokens/redeem": "token.made",
}

Headers = Mapping[str, str]


class Acts:
    """Someone who may do everything, and things to do it to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.boss = site.token(site.a_person("boss@example.org", "admin", "reviewer", "operator"))

    def post(self, path: str, body: Any = None, *, headers: Headers | None = None) -> Response:
        return self.site.client.post(path, json=body, headers=headers or self.boss)

    def request(self, **requirement: Any) -> str:
        _, [request_id] = self.site.a_waiting_run(asking(**requirement))
        return ids.show("req", request_id)

    def vote(self, request: str, **said: Any) -> Response:
        shown = self.site.client.get(f"/v1/requests/{request}", headers=self.boss).json()
        body = {"verdict": "approve", "digest": shown["digest"], "revision": shown["revision"]} | said
        return self.post(f"/v1/requests/{request}/votes", body)

    def many(self) -> Response:
        request = self.request(tier=Tier.LOW)
        shown = self.site.client.get(f"/v1/requests/{request}", headers=self.boss).json()
        vote = {"request_id": request, "verdict": "approve", "digest": shown["digest"], "revision": shown["revision"]}
        return self.post("/v1/votes", {"votes": [vote]})

    def made(self, path: str, body: Any) -> str:
        answer = self.post(path, body)
        assert answer.status_code < 300, answer.text
        return str(answer.json()["id"])

    def person(self) -> str:
        number = ids.new().hex
        return self.made("/v1/people", {"email": f"p{number}@example.org", "name": "P", "roles": ["reviewer"]})

    def disabled(self) -> str:
        person = self.person()
        assert self.post(f"/v1/people/{person}/disable").status_code == 200
        return person

    def key(self) -> str:
        return self.made("/v1/keys", {"name": ids.new().hex, "scopes": ["runs:read"]})

    def endpoint(self) -> str:
        return self.made("/v1/endpoints", {"url": f"https://hooks.acme.org/{ids.new().hex}"})

    def signed_out(self) -> Response:
        Browser(self.site).sign_in(self.site.ana)
        return self.post(f"/v1/people/{ids.show('per', self.site.ana.id)}/sign-out")

    def enabled(self) -> Response:
        endpoint = self.endpoint()
        assert self.post(f"/v1/endpoints/{endpoint}/disable").status_code == 200
        return self.post(f"/v1/endpoints/{endpoint}/enable")

    def batch(self) -> Response:
        headers = self.site.key("runs:submit") | {"Content-Type": "application/x-ndjson"}
        return self.site.client.post("/v1/batches", content=b'{"agent": "plain", "prompt": "x"}\n', headers=headers)

    def resumed(self) -> Response:
        batch = self.batch().json()["id"]
        assert self.post(f"/v1/batches/{batch}/pause").status_code == 200
        return self.post(f"/v1/batches/{batch}/resume")

    def away(self) -> Response:
        until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        return self.post("/v1/absences", {"stand_in": self.site.ana.email, "until_at": until})

    def withdrawn(self) -> Response:
        request = self.request(tier=Tier.MEDIUM, approvals=2)
        assert self.vote(request).status_code == 200
        return self.post(f"/v1/requests/{request}/withdraw")

    def revealed(self) -> Response:
        arguments = {"path": "/a", "content": "password=hunter22"}
        request = self.request(arguments=arguments)
        [found] = self.site.client.get(f"/v1/requests/{request}", headers=self.boss).json()["masked"]
        wish = {"fingerprint": found["fingerprint"], "reason": "To compare it."}
        return self.post(f"/v1/requests/{request}/reveal", wish)

    def granted(self) -> Response:
        request = self.request(tier=Tier.LOW)
        assert self.vote(request).status_code == 200
        return self.post("/v1/grants", {"request_id": request, "most": 5})


def preferences(acts: Acts) -> Response:
    return acts.site.client.put("/v1/me/preferences", json={"email": True}, headers=acts.boss)


Act = Callable[[Acts], Response]
RULES = '[[rule]]\nname = "never"\ntool = "pay"\nthen = "deny"\nbecause = "Never."\n'
TOLD: dict[str, tuple[str, Act]] = {
    "POST /v1/runs": ("run.submitted", lambda a: a.post("/v1/runs", {"agent": "plain", "prompt": "x"})),
    "POST /v1/runs/{run_id}/cancel": (
        "run.cancelled",
        lambda a: a.post(f"/v1/runs/{ids.show('run', a.site.a_run())}/cancel"),
    ),
    "POST /v1/runs/{run_id}/retry": (
        "run.retried",
        lambda a: a.post(f"/v1/runs/{ids.show('run', a.site.a_stuck_run())}/retry"),
    ),
    "POST /v1/runs/{run_id}/fail": (
        "run.failed",
        lambda a: a.post(f"/v1/runs/{ids.show('run', a.site.a_stuck_run())}/fail", {"reason": "no"}),
    ),
    "POST /v1/batches": ("batch.submitted", lambda a: a.batch()),
    "POST /v1/batches/{batch_id}/cancel": (
        "batch.cancelled",
        lambda a: a.post(f"/v1/batches/{a.batch().json()['id']}/cancel"),
    ),
    "POST /v1/batches/{batch_id}/pause": (
        "batch.paused",
        lambda a: a.post(f"/v1/batches/{a.batch().json()['id']}/pause"),
    ),
    "POST /v1/batches/{batch_id}/resume": ("batch.resumed", lambda a: a.resumed()),
    "POST /v1/batches/{batch_id}/retry": (
        "batch.retried",
        lambda a: a.post(f"/v1/batches/{a.batch().json()['id']}/retry"),
    ),
    "POST /v1/agents/{name}/pause": ("agent.paused", lambda a: a.post("/v1/agents/plain/pause")),
    "POST /v1/agents/{name}/resume": (
        "agent.resumed",
        lambda a: a.post("/v1/agents/plain/pause") and a.post("/v1/agents/plain/resume"),
    ),
    "POST /v1/requests/{request_id}/votes": ("request.approved", lambda a: a.vote(a.request(tier=Tier.LOW))),
    "POST /v1/votes": ("request.approved", lambda a: a.many()),
    "POST /v1/requests/{request_id}/withdraw": ("vote.withdrawn", lambda a: a.withdrawn()),
    "POST /v1/requests/{request_id}/remarks": (
        "remark.added",
        lambda a: a.post(f"/v1/requests/{a.request()}/remarks", {"text": "Why?"}),
    ),
    "POST /v1/requests/{request_id}/reveal": ("request.revealed", lambda a: a.revealed()),
    "POST /v1/absences": ("absence.declared", lambda a: a.away()),
    "DELETE /v1/absences/{absence_id}": (
        "absence.ended",
        lambda a: a.site.client.delete(f"/v1/absences/{a.away().json()['id']}", headers=a.boss),
    ),
    "POST /v1/grants": ("grant.given", lambda a: a.granted()),
    "POST /v1/grants/{grant_id}/revoke": (
        "grant.revoked",
        lambda a: a.post(f"/v1/grants/{a.granted().json()['id']}/revoke"),
    ),
    "POST /v1/policy": ("policy.uploaded", lambda a: a.post("/v1/policy", {"text": RULES})),
    "POST /v1/policy/replay": ("policy.replayed", lambda a: a.post("/v1/policy/replay", {"policy": RULES})),
    "POST /v1/people": ("reviewer.added", lambda a: a.site.client.get(f"/v1/people/{a.person()}", headers=a.boss)),
    "POST /v1/people/{person_id}/change": (
        "reviewer.changed",
        lambda a: a.post(f"/v1/people/{a.person()}/change", {"name": "Q"}),
    ),
    "POST /v1/people/{person_id}/disable": ("reviewer.disabled", lambda a: a.post(f"/v1/people/{a.person()}/disable")),
    "POST /v1/people/{person_id}/enable": ("reviewer.enabled", lambda a: a.post(f"/v1/people/{a.disabled()}/enable")),
    "POST /v1/people/{person_id}/remove": ("reviewer.removed", lambda a: a.post(f"/v1/people/{a.person()}/remove")),
    "POST /v1/people/{person_id}/sign-out": ("session.ended_everywhere", lambda a: a.signed_out()),
    "POST /v1/keys": ("key.made", lambda a: a.site.client.get(f"/v1/keys/{a.key()}", headers=a.boss)),
    "POST /v1/keys/{key_id}/revoke": ("key.revoked", lambda a: a.post(f"/v1/keys/{a.key()}/revoke")),
    "POST /v1/endpoints": (
        "endpoint.added",
        lambda a: a.site.client.get(f"/v1/endpoints/{a.endpoint()}", headers=a.boss),
    ),
    "POST /v1/endpoints/{endpoint_id}/disable": (
        "endpoint.disabled",
        lambda a: a.post(f"/v1/endpoints/{a.endpoint()}/disable"),
    ),
    "POST /v1/endpoints/{endpoint_id}/enable": ("endpoint.enabled", lambda a: a.enabled()),
    "POST /v1/endpoints/{endpoint_id}/rotate": (
        "endpoint.rotated",
        lambda a: a.post(f"/v1/endpoints/{a.endpoint()}/rotate"),
    ),
    "POST /v1/endpoints/{endpoint_id}/remove": (
        "endpoint.removed",
        lambda a: a.post(f"/v1/endpoints/{a.endpoint()}/remove"),
    ),
    "POST /v1/endpoints/{endpoint_id}/redeliver": (
        "endpoint.redelivered",
        lambda a: a.post(f"/v1/endpoints/{a.endpoint()}/redeliver", {}),
    ),
    "PUT /v1/me/preferences": ("preferences.changed", preferences),
    "POST /v1/notices/resend": ("notice.resent", lambda a: a.post("/v1/notices/resend", headers=with_a_dead_notice(a))),
    "POST /v1/notices/{notice_id}/resend": ("notice.resent", lambda a: a.post(f"/v1/notices/{dead_notice(a)}/resend")),
    "POST /v1/notices/test": ("notice.tested", lambda a: a.post("/v1/notices/test", {})),
}


def dead_notice(acts: Acts) -> str:
    acts.request()
    with ledger.transaction(acts.site.gateway) as conn:
        row = conn.execute(
            """
            UPDATE notices SET state = 'dead', due_at = NULL
            WHERE id = (SELECT max(id::text)::uuid FROM notices)
            RETURNING id
            """
        ).fetchone()
    assert row is not None
    return ids.show("ntc", row[0])


def with_a_dead_notice(acts: Acts) -> Headers:
    dead_notice(acts)
    return acts.boss


def test_each_address_that_changes_something_is_told_of_or_says_why_not(site: Site) -> None:
    writing = {f"{method} {path}" for path, methods in routes_of(site) for method in methods - SAFE}

    assert writing == set(TOLD) | set(PAGES) | set(UNTOLD)


@pytest.mark.parametrize("address", TOLD)
def test_what_is_changed_is_told_in_the_same_transaction(address: str, site: Site) -> None:
    acts = Acts(site)
    action, act = TOLD[address]

    answer = act(acts)

    assert answer.status_code < 300, answer.text
    with ledger.transaction(site.gateway) as conn:
        told = conn.execute("SELECT xid::text::bigint, actor FROM audit_events WHERE action = %s", (action,)).fetchall()
        written: set[int] = set()
        for table in CHANGED:
            found = conn.execute(f"SELECT DISTINCT xmin::text::bigint FROM {table}".encode()).fetchall()
            written |= {row[0] for row in found}
    assert told
    assert {xid % 2**32 for xid, _ in told} & written or address in APART


# Rows written behind a savepoint bear an id of their own; of a new endpoint nothing is there to send once more; and a
# secret that is told, or a candidate that is tried on what was asked, changes nothing else.
APART = {
    *("POST /v1/votes", "POST /v1/endpoints/{endpoint_id}/redeliver"),
    *("POST /v1/requests/{request_id}/reveal", "POST /v1/policy/replay"),
}
CHANGED = (
    *("runs", "batches", "agents", "requests", "votes", "decisions", "revisions", "withdrawals", "remarks", "absences"),
    *("grants", "policies", "people", "keys", "sessions", "endpoints", "preferences", "notices"),
)
