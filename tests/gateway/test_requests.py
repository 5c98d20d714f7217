"""Reading requests and voting on them over HTTP: what is refused, and what the refusal tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import redis

from banksman import digest, ids, ledger
from banksman.digest import Json
from banksman.errors import NotAllowed
from banksman.ids import RequestId
from banksman.ledger import decisions, requests, runs
from banksman.records import Request
from banksman.signing import Verifier
from banksman.states import Kind, RequestState, RunStatus, Tier, Verdict
from banksman_gateway import decide
from tests.gateway.scenes import Site, asking


def test_a_request_shows_what_its_digest_covers_and_what_surrounds_it(site: Site) -> None:
    run_id, [first, second] = site.a_waiting_run(asking("c1"), asking("c2", tool="execute"))

    shown = site.request(first)

    assert shown["id"] == ids.show("req", first)
    assert shown["run_id"] == ids.show("run", run_id)
    assert (shown["kind"], shown["state"], shown["tool"]) == ("approval", "open", "write_file")
    assert shown["arguments"] == {"path": "/a.txt", "content": "hello\n"}
    assert "hello" in shown["rendered"]
    assert (shown["revision"], shown["tier"], shown["decision"]) == (1, "medium", None)
    assert shown["requirement"]["approvals"] == 1
    assert [other["id"] for other in shown["siblings"]] == [ids.show("req", second)]
    assert shown["context"]["said"] == "I will write it."
    with ledger.transaction(site.gateway) as conn:
        stored = requests.get(conn, first)
    assert digest.of_action(json.loads(stored.action)).hex() == shown["digest"]


def test_an_approval_is_signed_and_wakes_the_run(site: Site, verifier: Verifier, broker: str) -> None:
    run_id, [request_id] = site.a_waiting_run()

    answer = site.vote(request_id, site.token(site.ana), reason="Fine.")

    shown = answer.json()
    assert (answer.status_code, shown["state"]) == (200, "approved")
    assert shown["decision"]["by"] == ["ana@example.org"]
    assert [(vote["verdict"], vote["reason"]) for vote in shown["votes"]] == [("approve", "Fine.")]
    with ledger.transaction(site.gateway) as conn:
        decision = decisions.get(conn, request_id)
        assert decision is not None
        assert verifier.verify(decision.signed)["digest"] == shown["digest"]
        assert runs.get(conn, run_id).status is RunStatus.QUEUED
    with redis.Redis.from_url(broker) as queue:
        assert queue.llen("runs.resume") == 1


def test_a_run_waits_for_the_last_of_its_requests(site: Site) -> None:
    run_id, [first, second] = site.a_waiting_run(asking("c1"), asking("c2"))
    headers = site.token(site.ana)

    site.vote(first, headers)
    with ledger.transaction(site.gateway) as conn:
        between = runs.get(conn, run_id).status
    site.vote(second, headers, verdict="deny", reason="No.")

    with ledger.transaction(site.gateway) as conn:
        assert (between, runs.get(conn, run_id).status) == (RunStatus.WAITING, RunStatus.QUEUED)


@pytest.mark.parametrize(("said", "changed"), [({"digest": "00" * 32}, "digest"), ({"revision": 2}, "revision")])
def test_a_vote_on_something_else_is_told_what_changed(site: Site, said: dict[str, Any], changed: str) -> None:
    _, [request_id] = site.a_waiting_run()

    answer = site.vote(request_id, site.token(site.ana), **said)

    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (409, "urn:banksman:problem:changed")
    assert problem["current"]["changed"] == changed
    assert problem["current"]["revision"] == 1
    assert site.request(request_id)["state"] == "open"


def test_who_votes_too_late_is_told_who_won(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    site.vote(request_id, site.token(site.ana))

    late = site.vote(request_id, site.token(site.ben), verdict="deny")
    again = site.vote(request_id, site.token(site.ana))

    for answer in (late, again):
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (409, "urn:banksman:problem:already-decided")
        assert problem["current"]["state"] == "approved"
        assert problem["current"]["decided_by"][0]["person"] == "ana@example.org"


def test_one_person_has_one_vote(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    headers = site.token(site.ana)

    first = site.vote(request_id, headers)
    second = site.vote(request_id, headers)
    other = site.vote(request_id, site.token(site.ben))

    assert (first.status_code, first.json()["state"]) == (200, "open")
    assert (second.status_code, second.json()["type"]) == (409, "urn:banksman:problem:already-voted")
    assert other.json()["state"] == "approved"


def test_an_edit_is_a_patch_and_a_new_revision(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()

    refused = site.vote(request_id, site.token(site.ana), arguments={"content": 7})
    answer = site.vote(request_id, site.token(site.ana), arguments={"content": "bye\n"})

    shown = answer.json()
    assert refused.status_code == 422
    assert (answer.status_code, shown["state"], shown["revision"]) == (200, "approved", 2)
    assert shown["arguments"] == {"path": "/a.txt", "content": "bye\n"}
    assert [(old["revision"], old["by"]) for old in shown["revisions"]] == [(1, None), (2, "ana@example.org")]


def test_the_requester_does_not_decide(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(requester=site.ana)

    answer = site.vote(request_id, site.token(site.ana))

    assert answer.status_code == 403
    assert site.request(request_id)["state"] == "open"


def test_no_key_votes_and_a_key_answers_external_work_alone(site: Site) -> None:
    _, [approval, external] = site.a_waiting_run(asking("c1"), asking("c2", kind=Kind.EXTERNAL))
    headers = site.key("requests:answer", "requests:read", "votes")

    refused = site.vote(approval, headers)
    answered = site.vote(external, headers, verdict="answer", answer={"ticket": 7})

    assert refused.status_code == 403
    assert (answered.status_code, answered.json()["state"]) == (200, "answered")
    assert answered.json()["votes"][0]["by"] == "ci"


def test_a_key_that_may_not_answer_learns_nothing_by_voting(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    key = site.key("runs:submit", "runs:read")
    site.vote(request_id, site.token(site.ana))

    for refused in (site.vote(request_id, key), site.vote(request_id, key, revision=9)):
        assert refused.status_code == 403
        assert "current" not in refused.json()
        assert "ana@example.org" not in refused.text


def test_tier_high_is_not_reached_by_a_token(site: Site) -> None:
    _, [request_id] = site.a_waiting_run(asking(tier=Tier.HIGH))

    answer = site.vote(request_id, site.token(site.ana), reason="Because.")

    assert answer.status_code == 403


UNUSABLE: list[dict[str, Any]] = [
    {"digest": "xyz"},
    {"verdict": "maybe"},
    {"revision": "1"},
    {"stop_run": "yes"},
    {"verdct": "approve"},
    {"verdict": "answer", "answer": 1},
    {"arguments": {"content": "x" * 300_000}},
]


def test_a_vote_that_cannot_be_used_changes_nothing(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()

    for said in UNUSABLE:
        answer = site.vote(request_id, site.token(site.ana), **said)

        assert answer.status_code == 422, said
    assert site.request(request_id)["votes"] == []


def test_many_votes_have_a_result_each(site: Site) -> None:
    run_id, [good, stale] = site.a_waiting_run(asking("c1"), asking("c2"))
    _, [high] = site.a_waiting_run(asking(tier=Tier.HIGH))
    unknown = RequestId(ids.new())
    votes = [
        {
            "request_id": ids.show("req", request_id),
            "verdict": "approve",
            "digest": "00" * 32 if request_id in (stale, unknown) else site.request(request_id)["digest"],
            "revision": 1,
        }
        for request_id in (high, good, stale, unknown)
    ] + [{"request_id": "nonsense", "verdict": "deny", "digest": "00" * 32, "revision": 1}]

    answer = site.client.post("/v1/votes", json={"votes": votes}, headers=site.token(site.ana))

    rows = answer.json()["items"]
    assert [row["request_id"] for row in rows] == [vote["request_id"] for vote in votes]
    assert [row["status"] for row in rows] == [403, 200, 409, 404, 422]
    assert rows[1]["request"]["state"] == "approved"
    assert rows[2]["problem"]["current"]["changed"] == "digest"
    with ledger.transaction(site.gateway) as conn:
        assert requests.get(conn, good).state is RequestState.APPROVED
        assert requests.get(conn, stale).state is RequestState.OPEN
        assert runs.get(conn, run_id).status is RunStatus.WAITING


def test_a_list_of_requests_is_filtered_and_paged(site: Site) -> None:
    run_id, [first, second, third] = site.a_waiting_run(*(asking(f"c{n}") for n in range(3)))
    site.a_waiting_run()
    site.vote(second, site.token(site.ana))
    headers = site.key("requests:read")
    url = f"/v1/requests?run_id={ids.show('run', run_id)}"

    page = site.client.get(f"{url}&limit=2", headers=headers).json()
    rest = site.client.get(f"{url}&limit=2&cursor={page['next_cursor']}", headers=headers).json()
    still_open = site.client.get(f"{url}&state=open", headers=headers).json()

    assert [item["id"] for item in page["items"]] == [ids.show("req", i) for i in (first, second)]
    assert [item["id"] for item in rest["items"]] == [ids.show("req", third)]
    assert rest["next_cursor"] is None
    assert [item["id"] for item in still_open["items"]] == [ids.show("req", i) for i in (first, third)]


def test_a_page_of_requests_costs_the_same_few_statements_however_long(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = site.key("requests:read")
    site.a_waiting_run()
    site.client.get("/v1/requests", headers=headers)
    executed: list[object] = []
    execute = psycopg.Connection.execute

    def counting(self: Any, query: Any, *rest: Any, **more: Any) -> Any:
        executed.append(query)
        return execute(self, query, *rest, **more)

    for _ in range(3):
        site.a_waiting_run(*(asking(f"c{n}") for n in range(5)))
    monkeypatch.setattr(psycopg.Connection, "execute", counting)
    one = site.client.get("/v1/requests?limit=1", headers=headers)
    for_one = len(executed)
    many = site.client.get("/v1/requests?limit=100", headers=headers)

    assert (len(one.json()["items"]), len(many.json()["items"])) == (1, 16)
    assert len(executed) - for_one == for_one <= 5


def test_a_link_by_itself_does_not_decide_above_tier_low(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()

    with ledger.transaction(site.gateway) as conn:
        shown = requests.get(conn, request_id)
        ballot = decide.Ballot(Verdict.APPROVE, shown.digest, shown.revision)
        with pytest.raises(NotAllowed, match="Tier medium"):
            decide.vote(conn, request_id, decide.Voter("link", site.ana), ballot, site.parts.pen)


def _other_arguments(shown: Request) -> Request:
    return replace(shown, action=shown.action.replace(b"/a.txt", b"/b.txt"))


def _fewer_people(shown: Request) -> Request:
    return replace(shown, requirement=replace(shown.requirement, approvals=1))


@pytest.mark.parametrize("change", [_other_arguments, _fewer_people])
def test_a_stored_request_that_is_not_what_its_digest_says_is_not_decided(
    site: Site, change: Callable[[Request], Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, [request_id] = site.a_waiting_run(asking(approvals=2))
    with ledger.transaction(site.gateway) as conn:
        changed = change(requests.get(conn, request_id))

    def hold(*_: object) -> Request:
        return changed

    monkeypatch.setattr(requests, "hold", hold)
    answer = site.vote(request_id, site.token(site.ana))

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:banksman:problem:not-genuine")


@pytest.mark.parametrize(
    "schema",
    [{"properties": {"path": {"$ref": "file:///etc/hostname"}}}, {"properties": {"path": {"pattern": "^\\p{L}+$"}}}],
    ids=["a reference elsewhere", "a pattern that Python cannot read"],
)
def test_a_tools_schema_reads_nothing_and_breaks_nothing(site: Site, schema: dict[str, Json]) -> None:
    new = replace(asking(), schema=digest.canonical(schema), schema_hash=digest.of_schema(schema))
    _, [request_id] = site.a_waiting_run(new)

    edited = site.vote(request_id, site.token(site.ana), arguments={"path": "/b.txt"})

    assert edited.status_code == 422
    assert "cannot be checked here" in edited.json()["detail"]
    assert site.vote(request_id, site.token(site.ana)).json()["state"] == "approved"


@pytest.mark.parametrize("path", ["/v1/requests?agent=%00", "/v1/runs?agent=%00"])
def test_a_text_that_no_column_can_hold_is_refused(site: Site, path: str) -> None:
    answer = site.client.get(path, headers=site.token(site.ana))

    assert answer.status_code == 422, answer.text
