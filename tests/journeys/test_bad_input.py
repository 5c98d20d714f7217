"""The story of a program that gets everything wrong: each time a sentence, the right status, and nothing written."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

import httpx
import pytest

from tests.journeys.outsider import Shape, problem
from tests.journeys.stacks import Stack

JSON = {"Content-Type": "application/json"}
REFUND = "The customer of order A-1042 writes that the lamp arrived broken. Refund it."


Rows = Callable[[], list[tuple[int, ...]]]


@pytest.fixture
def rows(calm: Stack) -> Rows:
    """Counts the rows that a submission or a vote would leave."""
    tables = ("runs", "requests", "revisions", "votes", "decisions", "executions", "answers")
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    return lambda: calm.query(f"SELECT {counts}")


@pytest.fixture
def waiting(calm: Stack) -> Shape:
    """A request that waits for a decision."""
    run = calm.program().submit("desk", REFUND)
    [request] = calm.program().asked(run["id"])
    return request


def test_a_refused_body_is_taken_in_so_that_no_client_is_reset_before_the_answer(calm: Stack) -> None:
    url = httpx.URL(str(calm.program().http.base_url))
    size = 3_000_000
    head = f"POST /v1/runs HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Length: {size}\r\n\r\n".encode()

    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(head + b"x" * 1000)
        early, _, _ = select.select([connection], [], [], 0.5)
        connection.sendall(b"x" * (size - 1000))
        answer = connection.recv(65536)

    assert early == []
    assert answer.startswith(b"HTTP/1.1 413")


SUBMISSIONS = {
    "unknown agent": ('{"agent": "nobody", "prompt": "x"}', 422, "There is no agent 'nobody'. Workers bring: "),
    "broken": ('{"agent": "desk", "prompt": ', 400, "The body is not JSON"),
    "doubled": ('{"agent": "desk", "prompt": "x", "prompt": "y"}', 400, "the key 'prompt' twice"),
    "misspelt": ('{"agent": "desk", "promt": "x"}', 422, "promt"),
    "empty prompt": ('{"agent": "desk", "prompt": ""}', 422, "prompt"),
    "no number": ('{"agent": "desk", "prompt": "x", "metadata": {"n": NaN}}', 400, "NaN"),
    "oversized": ('{"agent": "desk", "prompt": "' + "x" * 1_100_000 + '"}', 413, "1,048,576 bytes"),
    "a list": ('["desk"]', 422, "body"),
    "nothing": ("", 422, "body"),
}


@pytest.mark.parametrize("wrong", SUBMISSIONS)
def test_a_wrong_submission_is_told_what_is_wrong(calm: Stack, rows: Rows, wrong: str) -> None:
    body, status, says = SUBMISSIONS[wrong]
    before = rows()

    refused = problem(calm.program().http.post("/v1/runs", content=body, headers=JSON), status)

    assert says in refused["detail"]
    assert rows() == before


VOTES = {
    "doubled": ('"verdict": "approve", "arguments": {"amount": "1", "amount": "9"}', 400, "the key 'amount' twice"),
    "no number": ('"verdict": "approve", "arguments": {"amount": 1e999}', 400, "not finite"),
    "no verdict": ('"verdict": "maybe"', 422, "verdict"),
    "foreign verdict": ('"verdict": "happened"', 422, "approve, deny, not happened"),
    "unfit": ('"verdict": "approve", "arguments": {"amount": 59}', 422, "amount: 59 is not of type 'string'"),
    "edit and deny": ('"verdict": "deny", "arguments": {"amount": "1"}', 422, "together with approving"),
    "too long": ('"verdict": "deny", "reason": "' + "x" * 4001 + '"', 422, "reason"),
}


@pytest.mark.parametrize("wrong", VOTES)
def test_a_wrong_vote_is_told_what_is_wrong(calm: Stack, rows: Rows, waiting: Shape, wrong: str) -> None:
    body, status, says = VOTES[wrong]
    before = rows()

    shown = f'"digest": "{waiting["digest"]}", "revision": {waiting["revision"]}'
    address = f"/v1/requests/{waiting['id']}/votes"
    content = "{" + body + ", " + shown + "}"
    refused = problem(calm.reviewer().http.post(address, content=content, headers=JSON), status)

    assert says in refused["detail"]
    assert rows() == before
    # The log behind it goes on being sealed meanwhile.
    now = calm.reviewer().request(waiting["id"])
    assert {**now, "audit_head": None} == {**waiting, "audit_head": None}


@pytest.mark.parametrize(("request_id", "status"), [("req_" + "0" * 32, 404), ("run_" + "0" * 32, 422), ("1", 422)])
def test_a_vote_on_nothing_is_told_so(calm: Stack, rows: Rows, waiting: Shape, request_id: str, status: int) -> None:
    before = rows()

    refused = problem(calm.reviewer().vote(waiting | {"id": request_id}, "approve"), status)

    assert request_id in refused["detail"]
    assert rows() == before


@pytest.mark.parametrize("changed", [{"digest": "0" * 64}, {"revision": 2}])
def test_a_vote_on_something_else_is_a_conflict_and_says_what_differs(
    calm: Stack, rows: Rows, waiting: Shape, changed: Shape
) -> None:
    before = rows()

    refused = problem(calm.reviewer().vote(waiting | changed, "approve"), 409)

    assert refused["current"]["changed"] == next(iter(changed))
    assert refused["current"]["digest"] == waiting["digest"]
    assert refused["current"]["revision"] == 1
    assert rows() == before


def test_a_vote_that_comes_twice_or_too_late_is_told_who_was_first(calm: Stack, rows: Rows, waiting: Shape) -> None:
    ana, ben = calm.reviewer(), calm.reviewer("ben@example.org")
    ana.decide(waiting, "deny", reason="No.")
    calm.program().ended(waiting["run_id"])
    before = rows()

    twice, late = (problem(ana.vote(waiting, "deny"), 409), problem(ben.vote(waiting, "approve"), 409))

    for refused in (twice, late):
        assert "already denied, by ana@example.org" in refused["detail"]
        assert refused["current"]["decided_by"][0]["verdict"] == "deny"
    assert rows() == before


def test_a_credential_that_may_not_is_refused(calm: Stack, rows: Rows, waiting: Shape) -> None:
    before = rows()
    key, nobody = calm.program(), httpx.Client(base_url=calm.url, trust_env=False)

    with nobody:
        anonymous = problem(nobody.get("/v1/runs"), 401)
        guessed = nobody.get("/v1/runs", headers={"Authorization": "Bearer bkm_key_nonsense"})
    voting = problem(key.vote(waiting, "approve"), 403)
    not_json = key.http.post("/v1/runs", content=b"agent=desk", headers={"Content-Type": "text/plain"})

    assert "WWW-Authenticate".lower() in guessed.headers
    assert problem(guessed, 401)["title"] == anonymous["title"]
    assert "API keys cannot vote" in voting["detail"]
    assert problem(not_json, 415)["detail"]
    assert rows() == before
