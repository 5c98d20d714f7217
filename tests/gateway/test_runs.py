"""Submitting, reading and stopping runs over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import pytest
import redis
from fastapi import FastAPI

from banksman import ids, ledger, wire
from banksman.ids import RunId
from banksman.ledger import audit, families, lists, requests, rescue, runs
from banksman.records import Delegation, Event
from banksman.states import RequestState, RunStatus
from banksman.wire import Wire
from tests.gateway.scenes import LEASE, Site


def test_a_submitted_run_is_there_and_a_worker_is_woken(site: Site, broker: str) -> None:
    body = {"agent": "plain", "prompt": "Tidy up.", "metadata": {"ticket": 7}, "tags": ["night"], "priority": 8}

    answer = site.client.post("/v1/runs", json=body, headers=site.key("runs:submit", "runs:read"))

    run = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/runs/{run['id']}"
    assert {name: run[name] for name in body} == body
    assert (run["status"], run["requester"], run["output"]) == ("queued", "ci", None)
    read = site.client.get(answer.headers["location"], headers=site.key("runs:read"))
    assert read.json() == run
    with redis.Redis.from_url(broker) as queue:
        [message] = cast("list[bytes]", queue.lrange("runs.start", 0, -1))
    run_id = RunId(ids.read("run", run["id"]))
    hint = wire.read(wire.START, message)
    assert (hint.task, hint.arguments, hint.stale) == ("start_run", [run_id.hex, 0], False)
    with ledger.transaction(site.gateway) as conn:
        [event] = audit.of_run(conn, run_id)
    assert event.action == "run.submitted"


def test_the_requester_is_the_keys_owner(site: Site) -> None:
    answer = site.client.post(
        "/v1/runs", json={"agent": "plain", "prompt": "x"}, headers=site.key("runs:submit", owner=site.ana.id)
    )

    assert answer.json()["requester"] == "ana@example.org"


def test_only_a_key_that_may_submit_as_others_names_a_requester(site: Site) -> None:
    body = {"agent": "plain", "prompt": "x", "requester": "carl@example.org"}

    refused = site.client.post("/v1/runs", json=body, headers=site.key("runs:submit"))
    accepted = site.client.post("/v1/runs", json=body, headers=site.key("runs:submit", "runs:submit-as"))

    assert refused.status_code == 403
    assert accepted.json()["requester"] == "carl@example.org"


def test_no_person_submits_in_anothers_name_and_so_past_their_own_four_eyes(site: Site) -> None:
    site.announce("plain")
    for token in (site.token(site.ana), site.token(site.ana, "runs:submit", "runs:submit-as")):
        body = {"agent": "plain", "prompt": "x", "requester": "carl@example.org"}
        alone = site.client.post("/v1/runs", json=body, headers=token)
        batch = site.client.post(
            "/v1/batches", content=json.dumps(body), headers={**token, "Content-Type": "application/x-ndjson"}
        )

        assert (alone.status_code, batch.status_code) == (403, 403)
    assert _count_runs(site) == 0


def test_a_requester_is_found_past_the_blanks_around_their_address(site: Site) -> None:
    body = {"agent": "plain", "prompt": "x", "requester": " Ana@example.org "}

    answer = site.client.post("/v1/runs", json=body, headers=site.key("runs:submit", "runs:submit-as"))

    assert answer.json()["requester"] == "ana@example.org"


def test_an_unknown_agent_is_refused_with_the_known_ones(site: Site) -> None:
    site.announce("refunds")

    answer = site.client.post("/v1/runs", json={"agent": "plane", "prompt": "x"}, headers=site.key("runs:submit"))

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "There is no agent 'plane'. Workers bring: plain, refunds."
    assert _count_runs(site) == 0


UNUSABLE = [
    ('{"agent": "plain", "prompt": "x", "agent": "other"}', 400, "twice"),
    ('{"agent": "plain", "prompt": "x", "metadata": {"n": NaN}}', 400, "NaN"),
    ('{"agent": "plain", "prompt": "x", "metadata": {"n": 9007199254740993}}', 400, "2^53-1"),
    ('{"agent": "plain", "prompt": "\\ud800"}', 400, "surrogate"),
    ('{"agent": "plain", ', 400, "not JSON"),
    ('{"agent": "plain", "prompt": "x", "metadata": ' + '{"a":' * 99 + "1" + "}" * 100, 400, "deeper"),
    ('{"agent": "plain"}', 422, "body.prompt"),
    ('{"agent": "plain", "prompt": ""}', 422, "body.prompt"),
    ('{"agent": "plain", "prompt": "x", "promt": "y"}', 422, "body.promt"),
    ('{"agent": "pl\\u0000ain", "prompt": "x"}', 422, "body.agent"),
    ('{"agent": "plain", "prompt": "x", "priority": 10}', 422, "body.priority"),
    ('{"agent": "plain", "prompt": "x", "priority": true}', 422, "body.priority"),
    ('{"agent": "plain", "prompt": "x", "finish_by": "2026-01-01T00:00:00"}', 422, "finish_by"),
    ('{"agent": "plain", "prompt": "x", "finish_by": "9999-12-31T23:59:59-12:00"}', 422, "finish_by"),
    ('{"agent": "plain", "prompt": "x", "finish_by": "0001-01-01T00:00:00+12:00"}', 422, "finish_by"),
    ('{"agent": "plain", "prompt": "x", "metadata": {"m": "' + "y" * 70_000 + '"}}', 422, "65,536"),
    ("[]", 422, "body"),
    ("", 422, "body"),
]


def test_a_body_that_cannot_be_used_says_why_and_writes_nothing(site: Site) -> None:
    headers = site.key("runs:submit") | {"Content-Type": "application/json"}

    for body, status, says in UNUSABLE:
        answer = site.client.post("/v1/runs", content=body, headers=headers)

        problem = answer.json()
        assert answer.status_code == problem["status"] == status, body[:80]
        assert says in problem["detail"], body[:80]
        assert problem["type"].startswith("urn:banksman:problem:")
    assert _count_runs(site) == 0


def test_a_body_past_one_mebibyte_is_refused_however_it_is_sent(site: Site) -> None:
    body = json.dumps({"agent": "plain", "prompt": "x" * 1024 * 1024}).encode()
    headers = site.key("runs:submit") | {"Content-Type": "application/json"}

    whole = site.client.post("/v1/runs", content=body, headers=headers)
    in_pieces = site.client.post("/v1/runs", content=iter([body[:600_000], body[600_000:]]), headers=headers)

    assert (whole.status_code, in_pieces.status_code) == (413, 413)
    assert whole.json()["type"] == in_pieces.json()["type"] == "urn:banksman:problem:too-large"


def test_only_json_is_read(site: Site) -> None:
    headers = site.key("runs:submit") | {"Content-Type": "text/plain"}

    answer = site.client.post("/v1/runs", content='{"agent": "plain", "prompt": "x"}', headers=headers)

    assert answer.status_code == 415


def test_pages_follow_each_other_without_gap_or_overlap(site: Site) -> None:
    made = [ids.show("run", site.a_run()) for _ in range(5)]
    headers = site.key("runs:read")

    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = site.client.get("/v1/runs", params=params, headers=headers).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]

    assert seen == made[::-1]


def test_a_list_is_filtered_by_what_is_asked_and_an_unknown_filter_is_refused(site: Site) -> None:
    waiting, _ = site.a_waiting_run()
    site.a_run()
    headers = site.key("runs:read")

    by_status = site.client.get("/v1/runs?status=waiting", headers=headers).json()["items"]
    by_state = site.client.get("/v1/runs?state=waiting", headers=headers).json()["items"]
    by_agent = site.client.get("/v1/runs?agent=other", headers=headers).json()["items"]
    misspelt = site.client.get("/v1/runs?sate=waiting", headers=headers)

    assert [run["id"] for run in by_status] == [ids.show("run", waiting)]
    assert by_state == by_status
    assert by_agent == []
    assert misspelt.status_code == 422


def test_the_conversation_is_folded_from_its_snapshots(site: Site) -> None:
    run_id = site.a_run_with_files({})

    answer = site.client.get(_url(run_id, "/messages"), headers=site.key("runs:read"))

    assert answer.json()["items"] == [{"n": 1}, {"n": 22}, {"n": 3}]


def test_files_are_listed_and_come_back_byte_for_byte(site: Site) -> None:
    content = b"\x00\xff<script>alert(1)</script>"
    run_id = site.a_run_with_files({"/notes/a b.html": content})
    headers = site.key("runs:read")

    [listed] = site.client.get(_url(run_id, "/files"), headers=headers).json()["items"]
    file = site.client.get(_url(run_id, "/files/notes/a b.html"), headers=headers)
    missing = site.client.get(_url(run_id, "/files/../../etc/passwd"), headers=headers)
    absent = site.client.get(_url(run_id, "/files/etc/passwd"), headers=headers)

    assert (listed["path"], listed["size"]) == ("/notes/a b.html", len(content))
    assert file.content == content
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["x-content-type-options"] == "nosniff"
    assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.html"
    assert (missing.status_code, absent.status_code) == (404, 404)


def test_a_timeline_tells_what_happened_in_order_and_by_whom(site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run()
    site.vote(request_id, site.token(site.ana))

    answer = site.client.get(_url(run_id, "/timeline"), headers=site.key("runs:read"))

    told = answer.json()["items"]
    assert [line["at"] for line in told] == sorted(line["at"] for line in told)
    what = [(line["what"], line["who"]) for line in told]
    assert what[0] == ("run.submitted", "ci")
    assert ("notice.queued", "worker") in what
    assert ("request.approved", "ana@example.org") in what


def test_a_timeline_tells_each_tool_call_once(site: Site) -> None:
    run_id = site.a_run()
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
        assert claim is not None
        conn.execute(
            """
            INSERT INTO executions (run_id, step, call_id, tool, digest, fence)
            VALUES (%s, 1, 'c1', 'read_file', '', %s)
            """,
            (run_id, claim.fence),
        )
        audit.append(conn, Event("worker", "execution.started", run_id))

    answer = site.client.get(_url(run_id, "/timeline"), headers=site.key("runs:read"))

    started = [line for line in answer.json()["items"] if line["what"] == "execution.started"]
    assert [line["detail"]["tool"] for line in started] == ["read_file"]


def test_a_cancelled_run_takes_its_requests_with_it(site: Site) -> None:
    run_id, [request_id] = site.a_waiting_run()
    headers = site.key("runs:cancel", "runs:read")

    first = site.client.post(_url(run_id, "/cancel"), headers=headers)
    again = site.client.post(_url(run_id, "/cancel"), headers=headers)

    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    with ledger.transaction(site.gateway) as conn:
        assert requests.get(conn, request_id).state is RequestState.CANCELLED
        told = [event.action for event in audit.of_run(conn, run_id)]
    assert told.count("run.cancelled") == told.count("request.cancelled") == 1


def test_a_running_run_is_marked_for_its_worker_to_stop(site: Site) -> None:
    run_id = site.a_run_with_files({})

    answer = site.client.post(_url(run_id, "/cancel"), headers=site.key("runs:cancel"))

    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("running", True)


def test_a_finished_run_cannot_be_cancelled(site: Site) -> None:
    run_id = site.a_run()
    site.finish(run_id)

    answer = site.client.post(_url(run_id, "/cancel"), headers=site.key("runs:cancel"))

    assert answer.status_code == 409
    assert answer.json()["current"] == {"status": "finished"}


def test_a_person_gives_a_stuck_run_another_chance_and_a_machine_does_not(site: Site) -> None:
    run_id = site.a_stuck_run()

    by_key = site.client.post(_url(run_id, "/retry"), headers=site.key("runs:submit"))
    by_person = site.client.post(_url(run_id, "/retry"), headers=site.token(site.ana))
    again = site.client.post(_url(run_id, "/retry"), headers=site.token(site.ana))

    assert (by_key.status_code, by_person.status_code, again.status_code) == (403, 200, 409)
    assert by_person.json()["status"] == "queued"


def test_a_person_fails_a_stuck_run_and_the_reason_is_kept_with_the_last_error(site: Site) -> None:
    run_id = site.a_stuck_run()
    with ledger.transaction(site.worker) as conn:
        rescue.explain(conn, run_id, "The worker was lost.")
    why = {"reason": "  The account is closed. "}

    by_key = site.client.post(_url(run_id, "/fail"), json=why, headers=site.key("runs:cancel", "runs:submit"))
    unsaid = site.client.post(_url(run_id, "/fail"), json={"reason": " "}, headers=site.token(site.ana))
    by_person = site.client.post(_url(run_id, "/fail"), json=why, headers=site.token(site.ana))
    again = site.client.post(_url(run_id, "/fail"), json=why, headers=site.token(site.ana))

    assert [answer.status_code for answer in (by_key, unsaid, by_person, again)] == [403, 422, 200, 409]
    run = by_person.json()
    assert (run["status"], run["finished_at"] is not None) == ("failed", True)
    said = "ana@example.org failed this run: The account is closed.\nIts last error: The worker was lost."
    assert run["error"] == said
    assert again.json()["current"] == {"status": "failed"}


def test_without_a_broker_runs_and_votes_are_still_accepted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Wire("redis://127.0.0.1:1/0", expires=30)
    monkeypatch.setattr(cast("FastAPI", site.client.app).state, "parts", replace(site.parts, wire=away))

    run_id, [request_id] = site.a_waiting_run()
    voted = site.vote(request_id, site.token(site.ana))

    away.close()
    assert (voted.status_code, voted.json()["state"]) == (200, "approved")
    with ledger.transaction(site.gateway) as conn:
        assert runs.get(conn, run_id).status is RunStatus.QUEUED


def _url(run_id: ids.RunId, rest: str = "") -> str:
    return f"/v1/runs/{ids.show('run', run_id)}{rest}"


def _count_runs(site: Site) -> int:
    with ledger.transaction(site.gateway) as conn:
        return len(lists.of_runs(conn))


def test_child_runs_are_listed_shown_and_stopped_with_their_parent(site: Site) -> None:
    run_id, _ = site.a_waiting_run()
    task = Delegation(RunId(ids.new()), "plain", "Look it up.", 1, "c9")
    with ledger.transaction(site.worker) as conn:
        families.send_out(conn, run_id, 0, task, hint=LEASE)
    reader, parent = site.key("runs:read"), ids.show("run", run_id)

    [child] = site.client.get(f"/v1/runs?parent_id={parent}", headers=reader).json()["items"]

    assert child["id"] == ids.show("run", task.child_id)
    assert (child["parent_id"], child["status"], child["prompt"]) == (parent, "queued", "Look it up.")
    site.client.post(f"/v1/runs/{parent}/cancel", headers=site.key("runs:cancel"), json={})
    assert site.client.get(f"/v1/runs/{child['id']}", headers=reader).json()["status"] == "cancelled"
    timeline = site.client.get(f"/v1/runs/{child['id']}/timeline", headers=reader).json()["items"]
    assert [line["what"] for line in timeline] == ["run.cancelled"]
    assert "delegated" in timeline[0]["detail"]["because"]
