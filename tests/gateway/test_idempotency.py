"""Under an Idempotency-Key a request happens once, whoever repeats it and however impatiently."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from httpx2 import Response

from banksman import ids, ledger
from banksman.ledger import lists
from tests.gateway.scenes import Site

BODY = {"agent": "plain", "prompt": "Once."}


def test_a_repeated_submission_is_one_run(site: Site) -> None:
    headers = site.key("runs:submit") | {"Idempotency-Key": "a"}

    first = site.client.post("/v1/runs", json=BODY, headers=headers)
    again = site.client.post("/v1/runs", json=dict(reversed(BODY.items())), headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert _count(site) == 1


def test_the_same_key_on_another_request_is_refused(site: Site) -> None:
    headers = site.key("runs:submit") | {"Idempotency-Key": "a"}
    site.client.post("/v1/runs", json=BODY, headers=headers)

    answer = site.client.post("/v1/runs", json=BODY | {"prompt": "Twice."}, headers=headers)

    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert _count(site) == 1


def test_two_callers_may_use_the_same_key(site: Site) -> None:
    for _ in range(2):
        headers = site.key("runs:submit") | {"Idempotency-Key": "a"}
        assert site.client.post("/v1/runs", json=BODY, headers=headers).status_code == 201

    assert _count(site) == 2


def test_repeats_at_the_same_moment_are_one_run(site: Site) -> None:
    headers = site.key("runs:submit") | {"Idempotency-Key": "a"}

    def repeat(_: int) -> Response:
        return site.client.post("/v1/runs", json=BODY, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(repeat, range(8)))

    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 7
    assert _count(site) == 1


def test_what_failed_is_not_remembered(site: Site) -> None:
    headers = site.key("runs:submit") | {"Idempotency-Key": "a"}
    body = BODY | {"agent": "later"}
    assert site.client.post("/v1/runs", json=body, headers=headers).status_code == 422

    site.announce("later")

    assert site.client.post("/v1/runs", json=body, headers=headers).status_code == 201


def test_a_repeated_vote_is_answered_and_not_a_conflict(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    shown = site.request(request_id)
    headers = site.token(site.ana) | {"Idempotency-Key": "a"}
    body = {"verdict": "approve", "digest": shown["digest"], "revision": 1}
    url = f"/v1/requests/{ids.show('req', request_id)}/votes"

    first = site.client.post(url, json=body, headers=headers)
    again = site.client.post(url, json=body, headers=headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content


def test_a_key_that_is_no_key_is_refused(site: Site) -> None:
    for key in ("", "a b", "x" * 256):
        headers = site.key("runs:submit") | {"Idempotency-Key": key}
        assert site.client.post("/v1/runs", json=BODY, headers=headers).status_code == 422


def _count(site: Site) -> int:
    with ledger.transaction(site.gateway) as conn:
        return len(lists.of_runs(conn))
