"""Votes at the same moment, over HTTP to a gateway that listens: one wins, all hear the truth, no run is left."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest
import redis
import uvicorn
from starlette.testclient import TestClient

from banksman import ids, ledger
from banksman.embedded import ports
from banksman.ids import RequestId, RunId
from banksman.ledger import decisions, requests, runs, votes
from banksman.records import Person
from banksman.settings import GatewaySettings
from banksman.signing import Verifier
from banksman.states import RequestState, RunStatus
from banksman_gateway import app, silence
from tests.conftest import Database
from tests.gateway.scenes import LEASE, Site, asking

Call = Callable[[], httpx.Response]


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway on a port, and who calls it."""

    site: Site
    http: httpx.Client
    queue: redis.Redis
    owner: str

    def voters(self, many: int) -> list[dict[str, str]]:
        """Headers of so many different people."""
        people = [self.site.a_person(f"p{number}@example.org", "reviewer") for number in range(many)]
        return [self.site.token(person) for person in people]

    def vote(self, request_id: RequestId, headers: Mapping[str, str], verdict: str = "approve", **more: Any) -> Call:
        """A vote on what is asked now, ready to be sent."""
        with ledger.transaction(self.site.gateway) as conn:
            shown = requests.get(conn, request_id)
        body = {"verdict": verdict, "digest": shown.digest.hex(), "revision": shown.revision} | more
        url = f"/v1/requests/{ids.show('req', request_id)}/votes"
        return lambda: self.http.post(url, json=body, headers=headers)

    def withdrawal(self, request_id: RequestId, headers: Mapping[str, str]) -> Call:
        """Taking a vote back, ready to be sent."""
        url = f"/v1/requests/{ids.show('req', request_id)}/withdraw"
        return lambda: self.http.post(url, headers=headers)

    def count(self, table: str, request_id: RequestId) -> int:
        """Rows of a request."""
        with psycopg.connect(self.owner) as conn:
            query = f"SELECT count(*) FROM {table} WHERE request_id = %s".encode()
            row = conn.execute(query, (request_id,)).fetchone()
        assert row is not None
        return row[0]

    def state(self, request_id: RequestId) -> RequestState:
        with ledger.transaction(self.site.gateway) as conn:
            return requests.get(conn, request_id).state

    def status(self, run_id: RunId) -> RunStatus:
        with ledger.transaction(self.site.gateway) as conn:
            return runs.get(conn, run_id).status

    def wakeups(self) -> Counter[str]:
        """How often the broker was told to resume each run."""
        found = self.queue.lrange("runs.resume", 0, -1)
        assert isinstance(found, list)
        bodies = [json.loads(message)["body"] for message in found]
        return Counter(json.loads(body)[0][0] for body in bodies)


@pytest.fixture
def place(
    gateway_settings: GatewaySettings,
    database: Database,
    gateway_pool: ledger.Pool,
    worker_pool: ledger.Pool,
    reviewers: tuple[Person, Person],
    broker: str,
) -> Iterator[Place]:
    port = ports.free()
    made = app.create(gateway_settings)
    server = uvicorn.Server(uvicorn.Config(made, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    site = Site(TestClient(made, base_url="http://localhost:8420"), gateway_pool, worker_pool, *reviewers)
    site.announce("plain")
    with (
        httpx.Client(base_url=f"http://localhost:{port}", limits=httpx.Limits(max_connections=60), timeout=30) as http,
        redis.Redis.from_url(broker, decode_responses=True) as queue,
    ):
        yield Place(site, http, queue, database.owner)
    server.should_exit = True
    thread.join()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls in one moment, each in a thread of its own."""
    together = threading.Barrier(len(calls))

    def go(call: Callable[[], Any]) -> Any:
        together.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(go, calls))


def statuses(answers: Sequence[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@pytest.mark.parametrize("verdicts", [["approve"], ["approve", "deny"]])
def test_of_fifty_votes_at_once_one_decides_and_the_others_are_told_who_did(place: Place, verdicts: list[str]) -> None:
    run_id, [request_id] = place.site.a_waiting_run()
    calls = [
        place.vote(request_id, headers, verdicts[number % len(verdicts)])
        for number, headers in enumerate(place.voters(50))
    ]

    answers = at_once(*calls)

    assert statuses(answers) == {200: 1, 409: 49}
    [won] = [answer.json() for answer in answers if answer.status_code == 200]
    [vote] = won["votes"]
    assert won["state"] == won["decision"]["verdict"] == {"approve": "approved", "deny": "denied"}[vote["verdict"]]
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["type"] == "urn:banksman:problem:already-decided"
            assert [who["person"] for who in answer.json()["current"]["decided_by"]] == won["decision"]["by"]
            assert answer.json()["current"]["state"] == won["state"]
    assert (place.count("decisions", request_id), place.count("votes", request_id)) == (1, 1)
    assert place.status(run_id) is RunStatus.QUEUED
    assert place.wakeups() == {run_id.hex: 1}


def test_of_fifty_votes_at_once_a_quorum_takes_as_many_as_it_needs(place: Place) -> None:
    run_id, [request_id] = place.site.a_waiting_run(asking(approvals=3))
    calls = [place.vote(request_id, headers) for headers in place.voters(50)]

    answers = at_once(*calls)

    assert statuses(answers) == {200: 3, 409: 47}
    told = {tuple(sorted(who["person"] for who in answer.json()["current"]["decided_by"]))
            for answer in answers if answer.status_code == 409}  # fmt: skip
    [[*by]] = [answer.json()["decision"]["by"] for answer in answers if answer.json().get("state") == "approved"]
    assert told == {tuple(sorted(by))}
    assert len(set(by)) == 3
    assert (place.count("decisions", request_id), place.count("votes", request_id)) == (1, 3)
    assert place.wakeups() == {run_id.hex: 1}


@pytest.mark.parametrize("again", range(3))
def test_of_fifty_people_who_vote_and_take_it_back_at_once_no_decision_counts_what_was_taken_back(
    place: Place, verifier: Verifier, again: int
) -> None:
    run_id, [request_id] = place.site.a_waiting_run(asking(approvals=4))
    voters = place.voters(25)
    votes_ = [place.vote(request_id, headers) for headers in voters]
    back = [place.withdrawal(request_id, headers) for headers in voters]

    def wavering(vote: Call, take_back: Call) -> Callable[[], list[httpx.Response]]:
        return lambda: [step() for _ in range(3) for step in (vote, take_back)]

    wavers = [wavering(vote, take_back) for vote, take_back in zip(votes_, back, strict=True)]
    takers = [wavering(take_back, take_back) for take_back in back]
    answers: list[httpx.Response] = [answer for found in at_once(*wavers, *takers) for answer in found]
    # Whoever decides last counts what stands then.
    answers += [vote() for vote in votes_[:4]]

    assert set(statuses(answers)) <= {200, 409}, again
    with ledger.transaction(place.site.gateway) as conn:
        decision = decisions.get(conn, request_id)
        assert decision is not None
        cast = {ids.show("vot", vote.id): vote for vote in votes.of_request(conn, request_id)}
    counted = [cast[voter["vote"]] for voter in verifier.verify(decision.signed)["voters"]]
    assert len({vote.person_id for vote in counted}) == len(counted) == 4
    assert all(not vote.withdrawals for vote in counted)
    assert place.count("decisions", request_id) == 1
    assert (place.status(run_id), place.wakeups()) == (RunStatus.QUEUED, {run_id.hex: 1})


def test_a_vote_is_taken_back_only_once_the_runs_row_is_free(place: Place) -> None:
    run_id, [request_id] = place.site.a_waiting_run(asking(approvals=2))
    ana = place.site.token(place.site.ana)
    assert place.vote(request_id, ana)().status_code == 200

    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(place.owner) as conn:  # another vote has begun, and counts this one
            conn.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (run_id,))
            back = pool.submit(place.withdrawal(request_id, ana))
            with psycopg.connect(place.owner, autocommit=True) as looking:
                waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                while not looking.execute(waiting).rowcount:
                    assert not back.done(), "it was taken back while another vote was counting it"
                    time.sleep(0.01)
        assert back.result().status_code == 200


def test_one_person_in_ten_tabs_at_once_is_one_person(place: Place) -> None:
    run_id, [request_id] = place.site.a_waiting_run(asking(approvals=2))
    call = place.vote(request_id, place.site.token(place.site.ana))

    answers = at_once(*[call] * 10)

    assert statuses(answers) == {200: 1, 409: 9}
    assert {a.json()["type"] for a in answers if a.status_code == 409} == {"urn:banksman:problem:already-voted"}
    assert (place.count("decisions", request_id), place.count("votes", request_id)) == (0, 1)
    assert place.status(run_id) is RunStatus.WAITING


def test_two_last_votes_at_once_on_two_requests_of_one_run_always_resume_it_once(place: Place) -> None:
    parked = [place.site.a_waiting_run(asking("c1"), asking("c2")) for _ in range(50)]
    ana, ben = place.site.token(place.site.ana), place.site.token(place.site.ben)
    calls = [(place.vote(first, ana), place.vote(second, ben, "deny")) for _, (first, second) in parked]
    together = threading.Barrier(2)

    def votes_of(side: int) -> list[httpx.Response]:
        answers: list[httpx.Response] = []
        for pair in calls:
            together.wait()
            answers.append(pair[side]())
        return answers

    with ThreadPoolExecutor(2) as pool:
        answers = [answer for side in pool.map(votes_of, (0, 1)) for answer in side]

    assert statuses(answers) == {200: 100}
    assert {place.status(run_id) for run_id, _ in parked} == {RunStatus.QUEUED}
    assert place.wakeups() == {run_id.hex: 1 for run_id, _ in parked}
    with ledger.transaction(place.site.worker) as conn:
        claims = [runs.claim(conn, run_id, 1, owner="w", lease=LEASE) for run_id, _ in parked for _ in range(2)]
    assert sum(claim is not None for claim in claims) == 50


def test_a_vote_that_waited_past_the_deadline_is_too_late(place: Place) -> None:
    run_id, [request_id] = place.site.a_waiting_run(asking(expires_after=1))
    vote = place.vote(request_id, place.site.token(place.site.ana))

    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(place.owner) as conn:
            conn.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (run_id,))
            answer = pool.submit(vote)
            conn.execute(
                "SELECT pg_sleep_until(expires_at + interval '0.1 s') FROM requests WHERE id = %s", (request_id,)
            )
        late = answer.result()

    assert (late.status_code, late.json()["current"]["state"]) == (409, "expired")
    assert place.count("votes", request_id) == 0
    assert place.status(run_id) is RunStatus.WAITING
    assert silence.act(place.site.parts) == 1
    assert place.status(run_id) is RunStatus.QUEUED


def test_votes_at_the_deadline_and_the_sweep_settle_each_request_once(place: Place) -> None:
    parked = [place.site.a_waiting_run(asking(expires_after=1)) for _ in range(12)]
    ana = place.site.token(place.site.ana)
    with ledger.transaction(place.site.gateway) as conn:
        deadlines = {request_id: requests.get(conn, request_id).expires_at for _, [request_id] in parked}
        row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    offset = time.monotonic() - row[0].timestamp()
    votes = {item: place.vote(item, ana) for item in deadlines}
    over = threading.Event()
    step = count()

    def vote_at_deadline(request_id: RequestId) -> httpx.Response:
        moment = deadlines[request_id].timestamp() + offset - (next(step) % 4) * 0.004
        time.sleep(max(0.0, moment - time.monotonic()))
        return votes[request_id]()

    def keep_sweeping() -> None:
        while not over.wait(0.001):
            silence.act(place.site.parts)

    with ThreadPoolExecutor(14) as pool:
        sweeps = [pool.submit(keep_sweeping) for _ in range(2)]
        answers = dict(zip(deadlines, pool.map(vote_at_deadline, deadlines), strict=True))
        over.set()
        for item in sweeps:
            item.result()
    silence.act(place.site.parts)

    for run_id, [request_id] in parked:
        voted = answers[request_id].status_code == 200
        assert place.state(request_id) is (RequestState.APPROVED if voted else RequestState.EXPIRED)
        assert place.count("decisions", request_id) == place.count("votes", request_id) == int(voted)
        assert place.status(run_id) is RunStatus.QUEUED
    assert place.wakeups() == {run_id.hex: 1 for run_id, _ in parked}


def test_the_sweep_waits_for_the_runs_row_before_it_touches_a_request(place: Place) -> None:
    run_id, [request_id] = place.site.a_waiting_run(asking(expires_after=0))

    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(place.owner) as conn:  # a vote has begun, and goes for its request next
            conn.execute("SELECT FROM runs WHERE id = %s FOR UPDATE", (run_id,))
            swept = pool.submit(silence.act, place.site.parts)
            with psycopg.connect(place.owner, autocommit=True) as looking:
                waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                while not looking.execute(waiting).rowcount:
                    time.sleep(0.01)
            conn.execute("SELECT FROM requests WHERE id = %s FOR UPDATE NOWAIT", (request_id,))
        assert swept.result() == 1


def test_a_vote_and_a_stop_at_once_leave_a_run_that_is_over_and_nothing_open(place: Place) -> None:
    parked = [place.site.a_waiting_run(asking("c1"), asking("c2")) for _ in range(12)]
    ana, ben = place.site.token(place.site.ana), place.site.token(place.site.a_person("op@example.org", "operator"))

    for run_id, (first, second) in parked:
        url = f"/v1/runs/{ids.show('run', run_id)}/cancel"
        voted, stopped = at_once(place.vote(first, ana), lambda url=url: place.http.post(url, headers=ben))

        assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")
        assert place.status(run_id) is RunStatus.CANCELLED
        assert place.state(second) is RequestState.CANCELLED
        if voted.status_code == 200:
            assert place.state(first) is RequestState.APPROVED
        else:
            assert (voted.status_code, voted.json()["current"]["state"]) == (409, "cancelled")
            assert place.count("votes", first) == place.count("decisions", first) == 0
    assert place.wakeups() == {}
