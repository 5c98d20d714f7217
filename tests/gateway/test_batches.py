"""Batches over HTTP: accepted whole or not at all, counted, and cancelled at once while everything else goes on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.errors import Conflict
from banksman.ids import NoticeId, RequestId, RunId
from banksman.ledger import agents, audit, batches, families, lists, progress, requests, rescue, runs
from banksman.records import Delegation, Event
from banksman.states import RequestState, RunStatus, Verdict
from banksman_gateway import batch_lines, decide, inflating, intake
from banksman_gateway import batches as door
from tests.gateway.scenes import LEASE, Site, asking, bound

LINES = {"Content-Type": "application/x-ndjson"}


def submit(site: Site, *rows: Any, headers: dict[str, str] | None = None, params: Any = None) -> Response:
    body = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    sent = (headers or site.key("runs:submit")) | LINES
    return site.client.post("/v1/batches", content=body, headers=sent, params=params)


def some(count: int) -> list[dict[str, Any]]:
    return [{"agent": "plain", "prompt": f"Do {n}."} for n in range(count)]


def a_batch(site: Site, count: int) -> tuple[ids.BatchId, list[RunId]]:
    answer = submit(site, *some(count))
    assert answer.status_code == 201, answer.text
    batch_id = ids.BatchId(ids.read("bat", answer.json()["id"]))
    with ledger.transaction(site.gateway) as conn:
        found = lists.of_runs(conn, batch_id=batch_id, limit=count)
    return batch_id, sorted(run.id for run in found)


def parked(site: Site, run_id: RunId) -> RequestId:
    """A run of a batch that waits for a person."""
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
        assert claim is not None
        new = bound(asking(), run_id, [(NoticeId(ids.new()), site.ana.id)])
        requests.open_request(conn, run_id, 0, new)
        assert runs.park(conn, run_id, claim.fence, version="1", usage={})
    return new.id


def url(batch_id: ids.BatchId, rest: str = "") -> str:
    return f"/v1/batches/{ids.show('bat', batch_id)}{rest}"


def test_a_batch_is_accepted_counted_and_found_by_the_dispatcher(site: Site) -> None:
    rows = [*some(3), {"agent": "plain", "prompt": "Tagged.", "tags": ["x"], "metadata": {"n": 1}, "priority": 9}]

    answer = submit(site, *rows, params={"name": "night"})

    batch = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["name"], batch["total"], batch["runs"]["queued"]) == ("night", 4, 4)
    headers = site.key("runs:read")
    assert (
        site.client.get(answer.headers["location"], headers=headers).json().items()
        >= {
            name: batch[name] for name in ("id", "name", "total", "runs", "waits_for", "paused_at", "created_at")
        }.items()
    )
    listed = site.client.get("/v1/runs", params={"batch_id": batch["id"]}, headers=headers).json()["items"]
    assert sorted(run["prompt"] for run in listed) == ["Do 0.", "Do 1.", "Do 2.", "Tagged."]
    [tagged] = [run for run in listed if run["prompt"] == "Tagged."]
    assert (tagged["tags"], tagged["metadata"], tagged["priority"]) == (["x"], {"n": 1}, 9)
    with ledger.transaction(site.worker) as conn:
        due = runs.dispatch(conn, window=9, redispatch=LEASE, max_attempts=5)
    assert len(due) == 4
    with ledger.transaction(site.gateway) as conn:
        told = [event.action for event in audit.since(conn, (0, 0))]
    assert Counter(told) == {"run.submitted": 4, "batch.submitted": 1}


def test_one_faulty_line_refuses_all_and_every_fault_is_named_by_its_line(site: Site) -> None:
    answer = submit(
        site,
        *some(600),
        {"agent": "plane", "prompt": "x"},
        b"{",
        {"agent": "plain"},
        b"[]",
        {"agent": "plain", "prompt": "x", "promt": 1},
    )

    problem = answer.json()
    assert answer.status_code == 422
    assert [item["field"] for item in problem["errors"]] == [
        "line 601",
        "line 602",
        "line 603.prompt",
        "line 604",
        "line 605.promt",
    ]
    assert "There is no agent 'plane'" in problem["errors"][0]["message"]
    with ledger.transaction(site.gateway) as conn:
        assert lists.of_runs(conn) == []
        assert audit.since(conn, (0, 0)) == []


def test_what_is_no_batch_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "MOST_RUNS", 3)
    monkeypatch.setattr(intake, "MOST_BATCH_BYTES", 2 * 1024 * 1024)
    headers = site.key("runs:submit")

    empty = submit(site)
    too_many = submit(site, *some(4))
    as_json = site.client.post("/v1/batches", json=some(1), headers=headers)
    too_long = submit(site, {"agent": "plain", "prompt": "x" * 1024 * 1024})
    large = site.client.post("/v1/batches", content=b"\n" * (3 * 1024 * 1024), headers=headers | LINES)
    unscoped = submit(site, *some(1), headers=site.key("runs:read"))

    assert [answer.status_code for answer in (empty, too_many, as_json, too_long, large, unscoped)] == [
        *(422, 422, 415, 422, 413, 403)
    ]
    assert "may have 3 runs" in too_many.json()["detail"]
    assert "line 1: The line is longer" in too_long.json()["detail"]
    assert submit(site, *some(3)).status_code == 201


def test_no_run_of_a_batch_is_to_end_at_a_time_that_cannot_be_read_again(site: Site) -> None:
    far = {"agent": "plain", "prompt": "x", "finish_by": "9999-12-31T23:59:59-12:00"}
    last = {"agent": "plain", "prompt": "x", "finish_by": "8999-12-31T23:59:59+00:00"}

    answer = submit(site, far, last)
    some_of_it = submit(site, far, last, params={"on_error": "skip"})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "line 1.finish_by")
    assert (some_of_it.status_code, some_of_it.json()["skipped"]) == (201, 1)
    assert site.client.get("/v1/runs", headers=site.key("runs:read")).status_code == 200
    [by] = [run["finish_by"] for run in site.client.get("/v1/runs", headers=site.key("runs:read")).json()["items"]]
    assert by.startswith("8999-12-31")


def test_faulty_and_blank_lines_are_bounded_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_lines, "MOST_RUNS", 3)
    monkeypatch.setattr(batch_lines, "MOST_OTHER_LINES", 4)

    answers = [submit(site, *rows, params={"on_error": "skip"}) for rows in ([b"x"] * 8, [b"", *some(1), *[b""] * 6])]
    within = submit(site, b"", *some(2), *[b"x"] * 4, params={"on_error": "skip"})

    assert [answer.status_code for answer in answers] == [422, 422]
    assert all("4 lines more that are faulty or blank" in answer.json()["detail"] for answer in answers)
    assert (within.status_code, within.json()["total"], within.json()["skipped"]) == (201, 2, 4)


def test_a_repeated_batch_is_one(site: Site) -> None:
    headers = site.key("runs:submit") | {"Idempotency-Key": "a"}

    first, again = (submit(site, *some(3), headers=headers) for _ in range(2))
    other = submit(site, *some(2), headers=headers)

    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert other.status_code == 422
    with ledger.transaction(site.gateway) as conn:
        assert len(lists.of_runs(conn)) == 3


def test_cancelling_a_batch_takes_all_of_it_and_nothing_else(site: Site) -> None:
    batch_id, [waiting, running, done, *queued] = a_batch(site, 7)
    other = site.a_run()
    request_id = parked(site, waiting)
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, running, 0, owner="w", lease=LEASE)
        assert claim is not None
    site.finish(done)
    ana = site.token(site.ana)

    cancelled = site.client.post(url(batch_id, "/cancel"), headers=ana)
    again = site.client.post(url(batch_id, "/cancel"), headers=ana)

    batch = cancelled.json()
    assert cancelled.status_code == 200
    assert {name: count for name, count in batch["runs"].items() if count} == {
        "cancelled": 5,
        "running": 1,
        "finished": 1,
    }
    assert batch["finished_at"] is None
    assert again.json() == batch
    late = site.vote(request_id, ana)
    assert (late.status_code, "cancelled by ana@example.org" in late.json()["detail"]) == (409, True)
    with ledger.transaction(site.worker) as conn:
        assert runs.beat(conn, {running: claim.fence}, lease=LEASE) == {running: "stop"}
        assert runs.stop(conn, running, claim.fence)
        assert runs.get(conn, other).status is RunStatus.QUEUED
    assert site.client.get(url(batch_id), headers=ana).json()["finished_at"] is not None
    with ledger.transaction(site.gateway) as conn:
        told = Counter(event.action for run in [waiting, running, done, *queued] for event in audit.of_run(conn, run))
    assert (told["run.cancelled"], told["run.cancel_asked"], told["request.cancelled"]) == (5, 1, 1)


def test_a_key_that_stands_for_something_else_cancels_nothing(site: Site) -> None:
    batch_id, _ = a_batch(site, 2)
    headers = site.key("runs:submit", "runs:cancel", "runs:read") | {"Idempotency-Key": "once"}
    assert site.client.post("/v1/runs", json=some(1)[0], headers=headers).status_code == 201

    answer = site.client.post(url(batch_id, "/cancel"), headers=headers)

    assert answer.status_code == 422
    assert site.client.get(url(batch_id), headers=headers).json()["cancelled_at"] is None


def test_a_repeated_cancelling_is_answered_as_the_first_was_even_if_that_broke_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, _ = a_batch(site, 2)
    headers = site.key("runs:submit", "runs:cancel", "runs:read") | {"Idempotency-Key": "once"}

    def dies(*_: object) -> bool:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(door, "finish_cancelling", dies)
        assert site.client.post(url(batch_id, "/cancel"), headers=headers).status_code == 500
    broken_off = site.client.post(url(batch_id, "/cancel"), headers=headers)
    door.cancel_marked(site.parts)
    again = site.client.post(url(batch_id, "/cancel"), headers=headers | {"Idempotency-Key": "twice"})
    repeated = site.client.post(url(batch_id, "/cancel"), headers=headers | {"Idempotency-Key": "twice"})

    assert (broken_off.status_code, broken_off.json()["runs"]["queued"]) == (200, 2)
    assert broken_off.json()["cancelled_at"] is not None
    assert (again.json()["runs"]["cancelled"], repeated.content) == (2, again.content)


def test_who_may_not_stop_a_run_may_not_stop_a_batch(site: Site) -> None:
    batch_id, _ = a_batch(site, 1)
    auditor = site.token(site.a_person("carl@example.org", "auditor"))
    nobody = site.token(site.a_person("dora@example.org"))

    assert site.client.post(url(batch_id, "/cancel"), headers=site.key("runs:submit")).status_code == 403
    assert site.client.post(url(batch_id, "/cancel"), headers=auditor).status_code == 403
    assert site.client.post(url(batch_id, "/cancel"), headers=nobody).status_code == 404
    assert site.client.get(url(batch_id), headers=nobody).status_code == 404


def test_from_the_mark_on_nothing_of_a_batch_starts_and_the_sweep_ends_what_broke_off(site: Site) -> None:
    batch_id, [first, second] = a_batch(site, 2)
    with ledger.transaction(site.gateway) as conn:
        assert batches.mark(conn, batch_id, ids.show("per", site.ana.id))  # and the gateway dies here

    with ledger.transaction(site.worker) as conn:
        claimed = runs.claim(conn, first, 0, owner="w", lease=LEASE)
    door.cancel_marked(site.parts)

    assert claimed is None
    with ledger.transaction(site.gateway) as conn:
        assert [runs.get(conn, run).status for run in (first, second)] == [RunStatus.CANCELLED] * 2
        assert batches.cancelling(conn) == []


@dataclass
class Crowd:
    """Everybody who touches the runs of a batch, at once, until it is over."""

    site: Site
    made: list[RunId]
    asked: list[RequestId]
    held: dict[RunId, int] = field(default_factory=dict[RunId, int])
    over: threading.Event = field(default_factory=threading.Event)
    broken: list[BaseException] = field(default_factory=list[BaseException])

    def keep(self, work: Callable[[random.Random], None], seed: int) -> None:
        dice = random.Random(seed)
        while not self.over.is_set():
            try:
                work(dice)
            except BaseException as error:  # noqa: BLE001  a deadlock above all
                self.broken.append(error)

    def vote(self, dice: random.Random) -> None:
        with ledger.transaction(self.site.gateway) as conn:
            for request_id in sorted(dice.sample(self.asked, 3)):
                found = requests.hold(conn, request_id)
                if found.state is RequestState.OPEN:
                    ballot = decide.Ballot(Verdict.APPROVE, found.digest, found.revision)
                    decide.vote(conn, request_id, decide.Voter("token", self.site.ana), ballot, self.site.parts.pen)

    def claim(self, dice: random.Random) -> None:
        run_id = dice.choice(self.made)
        with ledger.transaction(self.site.worker) as conn:
            taken = runs.claim(conn, run_id, dice.randrange(2), owner="w", lease=LEASE)
        if taken is not None:
            self.held[run_id] = taken.fence

    def beat(self, dice: random.Random) -> None:
        mine = list(self.held.items())
        dice.shuffle(mine)
        with ledger.transaction(self.site.worker) as conn:
            runs.beat(conn, dict(mine), lease=LEASE)

    def look(self, _: random.Random) -> None:
        with ledger.transaction(self.site.worker) as conn:
            paused = agents.set_aside(conn)
            runs.dispatch(conn, window=50, redispatch=timedelta(0), max_attempts=10**6, paused=paused)
            rescue.bury_cancelled(conn)


def test_a_batch_is_cancelled_without_deadlock_amid_votes_claims_dispatch_and_heartbeats(site: Site) -> None:
    batch_id, made = a_batch(site, 120)
    crowd = Crowd(site, made, [parked(site, run_id) for run_id in made[:40]])
    works = (crowd.vote, crowd.vote, crowd.claim, crowd.claim, crowd.beat, crowd.look)
    threads = [threading.Thread(target=crowd.keep, args=(work, seed)) for seed, work in enumerate(works)]
    for thread in threads:
        thread.start()
    while len(crowd.held) < 20 and not crowd.broken:
        crowd.over.wait(0.01)

    answer = site.client.post(url(batch_id, "/cancel"), headers=site.token(site.ben))
    crowd.over.set()
    for thread in threads:
        thread.join(20)

    assert crowd.broken == []
    assert answer.status_code == 200
    with ledger.transaction(site.gateway) as conn:
        found = lists.of_runs(conn, batch_id=batch_id, limit=200)
        waiting = lists.of_requests(conn, state=RequestState.OPEN)
    assert {(run.status, run.cancel_at is None) for run in found} <= {
        (RunStatus.CANCELLED, False),
        (RunStatus.RUNNING, False),
    }
    assert waiting == []


def test_a_batch_in_gzip_is_the_same_batch(site: Site) -> None:
    body = "".join(json.dumps(row) + "\n" for row in some(2000)).encode()
    headers = site.key("runs:submit") | LINES | {"Content-Encoding": "gzip"}
    halves = gzip.compress(body[:1000]) + gzip.compress(body[1000:])

    first, second = (
        site.client.post("/v1/batches", content=sent, headers=headers) for sent in (gzip.compress(body), halves)
    )

    assert (first.status_code, first.json()["total"]) == (201, 2000), first.text
    assert (second.status_code, second.json()["total"]) == (201, 2000), second.text


def test_a_body_that_inflates_past_the_bound_or_is_not_whole_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lines, "MOST_BATCH_BYTES", 2 * 1024 * 1024)
    headers = site.key("runs:submit") | LINES
    bomb = gzip.compress(b"\n" * (64 * 1024 * 1024))
    whole = gzip.compress(json.dumps(some(1)[0]).encode())

    def send(body: bytes, encoding: str = "gzip") -> Response:
        return site.client.post("/v1/batches", content=body, headers=headers | {"Content-Encoding": encoding})

    answers = [send(bomb), send(whole[:-4]), send(b""), send(b"plain"), send(whole, "br"), send(whole, "identity")]

    assert len(bomb) < 100_000
    assert [answer.status_code for answer in answers] == [413, 422, 422, 422, 415, 422]
    assert "breaks off" in answers[1].json()["detail"]
    with ledger.transaction(site.gateway) as conn:
        assert lists.of_runs(conn) == []


def test_an_inflated_body_is_never_held_whole() -> None:
    reading = inflating.Inflating(64 * 1024 * 1024)

    parts = [len(part) for part in reading.feed(gzip.compress(bytes(40 * 1024 * 1024)))]
    reading.end()

    assert sum(parts) == 40 * 1024 * 1024
    assert max(parts) <= 256 * 1024


def test_faulty_lines_are_skipped_where_that_is_asked_for_and_named(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_lines, "MOST_LISTED", 2)
    rows = [b"{", *some(2), b"", {"agent": "plane", "prompt": "x"}, {"prompt": 1}, *some(1), b"x" * (3 * 1024 * 1024)]

    answer = submit(site, *rows, *some(1), params={"on_error": "skip"})
    none = submit(site, b"{", params={"on_error": "skip"})

    made = answer.json()
    assert answer.status_code == 201, answer.text
    assert (made["total"], made["skipped"], made["unlisted"]) == (4, 4, 2)
    assert [fault["field"] for fault in made["errors"]] == ["line 1", "line 5"]
    assert none.status_code == 422
    with ledger.transaction(site.gateway) as conn:
        [told] = [event for event in audit.since(conn, (0, 0)) if event.action == "batch.submitted"]
        lines = conn.execute("SELECT turn FROM runs ORDER BY turn").fetchall()
    assert (told.body["runs"], told.body["skipped"]) == (4, 4)
    assert lines == [(2,), (3,), (7,), (9,)]


def test_results_stream_as_lines_while_it_runs_and_go_on_from_a_cursor(site: Site, owner_pool: ledger.Pool) -> None:
    answer = submit(
        site, *({"agent": "plain", "prompt": "x", "key": f"k{n}", "metadata": {"n": n}} for n in range(450))
    )
    batch_id = ids.BatchId(ids.read("bat", answer.json()["id"]))
    with ledger.transaction(site.gateway) as conn:
        made = [row[0] for row in conn.execute("SELECT id FROM runs ORDER BY turn").fetchall()]
    for run_id in (made[7], made[3]):
        site.finish(RunId(run_id))
    reader = site.key("runs:read")

    def read(**params: Any) -> list[dict[str, Any]]:
        answer = site.client.get(url(batch_id, "/results"), params=params, headers=reader)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    lines = read()
    held_back = read(order="end")
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET finished_at = finished_at - interval '1 minute' WHERE finished_at IS NOT NULL")
    ended = read(order="end")

    assert [row["key"] for row in lines] == [f"k{n}" for n in range(450)]
    assert [row["line"] for row in lines] == list(range(1, 451))
    assert (lines[3]["output"], lines[3]["metadata"], lines[4]["status"]) == ("done", {"n": 3}, "queued")
    assert [row["key"] for row in read(after=lines[447]["cursor"])] == ["k448", "k449"]
    assert held_back == []
    assert [row["key"] for row in ended] == ["k7", "k3"]
    assert [row["key"] for row in read(order="end", after=ended[0]["cursor"])] == ["k3"]
    assert site.client.get(url(batch_id, "/results"), params={"after": "x"}, headers=reader).status_code == 422
    nobody = site.token(site.a_person("dora@example.org"))
    assert site.client.get(url(batch_id, "/results"), headers=nobody).status_code == 404


def test_no_cell_of_a_results_file_begins_a_formula(site: Site) -> None:
    keys = ["=1+1", "+1", "-1", "@x", " =x", "\uff1dx", "plain", 'a,"b"']
    answer = submit(site, *({"agent": "plain", "prompt": "x", "key": key, "metadata": {"a": 1}} for key in keys))
    path = f"/v1/batches/{answer.json()['id']}/results"

    asked = site.client.get(path, headers=site.key("runs:read") | {"Accept": "text/csv"})
    named = site.client.get(path, params={"format": "csv"}, headers=site.key("runs:read"))

    assert asked.headers["content-type"].startswith("text/csv")
    assert named.text == asked.text
    read = list(csv.DictReader(io.StringIO(asked.text)))
    assert [row["key"] for row in read] == [*(f"'{key}" for key in keys[:6]), *keys[6:]]
    assert {(row["status"], row["metadata"]) for row in read} == {("queued", '{"a": 1}')}


def said(site: Site, batch_id: ids.BatchId, *, limit: int) -> tuple[list[tuple[str, RunId | None]], int]:
    """What is said of a batch, read so many events of the log at a time, and how often that was."""
    found: list[tuple[str, RunId | None]] = []
    cursor, looks = (0, 0), 0
    while True:
        with ledger.transaction(site.gateway) as conn:
            news = progress.news(conn, batch_id, cursor, limit=limit)
        found += [(event.action, event.run_id) for event in news.events]
        cursor, looks = news.end, looks + 1
        if news.over or not news.more:
            return found, looks


def test_a_batchs_events_are_read_some_at_a_time_without_those_of_others(site: Site, owner_pool: ledger.Pool) -> None:
    for _ in range(3):
        site.a_waiting_run()
    batch_id, [first, second] = a_batch(site, 2)
    a_batch(site, 3)
    task = Delegation(RunId(ids.new()), "plain", "Do it.", step=1, call_id="c1")
    with ledger.transaction(site.worker) as conn:
        families.send_out(conn, first, 0, task, hint=LEASE)
        audit.append(conn, Event("worker:1", "run.delegated", task.child_id))
    with ledger.transaction(
        owner_pool
    ) as open_since_before:  # what is above the horizon is told later, and in its order
        audit.append(open_since_before, Event("test", "test.open"))
        site.client.post(url(batch_id, "/pause"), json={}, headers=site.token(site.ana))
        early, _ = said(site, batch_id, limit=1000)
    site.client.post(url(batch_id, "/cancel"), json={}, headers=site.token(site.ana))
    with ledger.transaction(site.gateway) as conn:
        whole = progress.news(conn, batch_id, (0, 0))

    at_once, _ = said(site, batch_id, limit=1000)
    in_steps, looks = said(site, batch_id, limit=2)

    submitted = [("run.submitted", first), ("run.submitted", second), ("batch.submitted", None)]
    assert early == [*submitted, ("run.delegated", task.child_id)]
    assert at_once[:5] == [*early, ("batch.paused", None)]
    assert Counter(at_once[5:]) == Counter(
        [("batch.cancelled", None), *(("run.cancelled", run) for run in (first, second, task.child_id))]
    )
    assert in_steps == at_once
    assert looks >= 6
    assert whole.over


def test_what_is_told_long_after_a_batch_is_not_read_through_for_it(site: Site, owner_pool: ledger.Pool) -> None:
    batch_id, _ = a_batch(site, 1)
    site.client.post(url(batch_id, "/cancel"), json={}, headers=site.token(site.ana))
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET finished_at = finished_at - interval '1 hour'")
    for _ in range(20):
        site.a_waiting_run()

    _, looks = said(site, batch_id, limit=5)

    assert looks == 1


def test_who_may_not_see_a_batch_does_not_follow_it(site: Site) -> None:
    batch_id, _ = a_batch(site, 1)
    stranger = site.token(site.a_person("nobody@example.org"))

    assert site.client.get(url(batch_id, "/events"), headers=stranger).status_code == 404
    assert site.client.get(url(batch_id, "/events"), headers=site.key("runs:submit")).status_code == 403
    assert site.client.get(
        url(batch_id, "/events"), headers=site.key("runs:read") | {"Last-Event-ID": "x"}
    ).is_client_error


def test_a_batch_is_paused_resumed_and_says_so(site: Site) -> None:
    batch_id, [first, *_] = a_batch(site, 3)
    ana = site.token(site.ana)

    paused = site.client.post(url(batch_id, "/pause"), headers=ana)
    with ledger.transaction(site.worker) as conn:
        refused = runs.claim(conn, first, 0, owner="w", lease=LEASE)
        sent = runs.dispatch(conn, window=9, redispatch=LEASE, max_attempts=5)
    resumed = site.client.post(url(batch_id, "/resume"), headers=ana)

    assert (paused.status_code, resumed.status_code) == (200, 200)
    assert (paused.json()["paused_at"] is None, resumed.json()["paused_at"] is None) == (False, True)
    assert (refused, sent) == (None, [])
    nobody = site.token(site.a_person("carl@example.org", "auditor"))
    assert site.client.post(url(batch_id, "/pause"), headers=nobody).status_code == 403
    with ledger.transaction(site.gateway) as conn:
        told = [event.action for event in audit.since(conn, (0, 0))]
    assert told[-2:] == ["batch.paused", "batch.resumed"]


def test_what_failed_is_tried_again_but_not_what_a_person_failed(site: Site) -> None:
    batch_id, [broken, given_up, stuck, done] = a_batch(site, 4)
    ana = site.token(site.ana)
    site.finish(done)
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, broken, 0, owner="w", lease=LEASE)
        assert claim is not None
        assert runs.fail(conn, broken, claim.fence, error="no")
        for run_id in (given_up, stuck):
            assert runs.claim(conn, run_id, 0, owner="w", lease=-LEASE)
        runs.dispatch(conn, window=9, redispatch=LEASE, max_attempts=1)
    path = f"/v1/runs/{ids.show('run', given_up)}/fail"
    assert site.client.post(path, json={"reason": "Wrong."}, headers=ana).status_code == 200

    by_key = site.client.post(url(batch_id, "/retry"), headers=site.key("runs:submit", "runs:cancel"))
    tried = site.client.post(url(batch_id, "/retry"), headers=ana)

    counts = {name: count for name, count in tried.json()["runs"].items() if count}
    assert by_key.status_code == 403
    assert counts == {"queued": 2, "failed": 1, "finished": 1}
    with ledger.transaction(site.gateway) as conn:
        assert [runs.get(conn, run).status for run in (broken, stuck)] == [RunStatus.QUEUED] * 2
        assert runs.get(conn, given_up).status is RunStatus.FAILED


def test_nothing_is_queued_again_in_a_batch_that_is_being_cancelled(site: Site) -> None:
    batch_id, [broken] = a_batch(site, 1)
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, broken, 0, owner="w", lease=LEASE)
        assert claim is not None
        assert runs.fail(conn, broken, claim.fence, error="no")
    with ledger.transaction(site.gateway) as conn:
        seen = batches.get(conn, batch_id)
        assert batches.mark(conn, batch_id, "per_x")
        assert batches.sweep(conn, batch_id)

    with ledger.transaction(site.gateway) as conn, pytest.raises(Conflict, match="was cancelled"):
        door.retry(conn, seen, "per_x")

    with ledger.transaction(site.gateway) as conn:
        assert runs.get(conn, broken).status is RunStatus.FAILED


def test_a_batch_that_is_over_is_not_cancelled(site: Site) -> None:
    batch_id, [run_id] = a_batch(site, 1)
    ana = site.token(site.ana)
    live, _ = a_batch(site, 1)
    first, again = (site.client.post(url(live, "/cancel"), headers=ana) for _ in range(2))
    site.finish(run_id)

    late = site.client.post(url(batch_id, "/cancel"), headers=ana)

    assert (late.status_code, late.json()["detail"]) == (409, "This batch is over: it was finished.")
    assert site.client.get(url(batch_id), headers=site.key("runs:read")).json()["cancelled_at"] is None
    assert (first.status_code, again.status_code) == (200, 200)


def test_a_batch_whose_reviewers_have_enough_to_do_begins_nothing_new(site: Site) -> None:
    batch_id, [first, *_] = a_batch(site, 4)
    other, _ = a_batch(site, 1)
    request_id = parked(site, first)
    with ledger.transaction(site.gateway) as conn:
        [group] = conn.execute("SELECT unnest(audience) FROM requests WHERE id = %s", (request_id,)).fetchone() or [""]

    def press(most: int) -> tuple[list[str], int]:
        with ledger.transaction(site.gateway) as conn:
            batches.press(conn, {group: most})
        with ledger.transaction(site.worker) as conn:
            sent = len(runs.dispatch(conn, window=9, redispatch=timedelta(0), max_attempts=99))
        return site.client.get(url(batch_id), headers=site.key("runs:read")).json()["waits_for"], sent

    assert press(1) == ([group], 1)
    assert press(2) == ([], 4)
    with ledger.transaction(site.gateway) as conn:
        assert batches.get(conn, other).waits_for == []
