"""Whoever needs many rows of a family takes them in one order, so that nobody waits for another in a ring.

In each of these stories somebody holds one row, a stop waits for it, and a second row, which comes later in the order,
can still be had.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import psycopg.errors
import pytest
from httpx2 import Response

from banksman import ids, ledger
from banksman.ids import RequestId, RunId
from banksman.ledger import audit, families, requests, runs
from banksman.records import Delegation
from banksman.states import RunStatus
from banksman_gateway import silence
from tests.gateway.scenes import LEASE, Site, asking, bound
from tests.gateway.test_batches import a_batch, url


def delegated(site: Site, parent: RunId, *others: RequestId) -> RunId:
    """Claim a run, and park it behind one child."""
    child = RunId(ids.new())
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, parent, 0, owner="w", lease=LEASE)
        assert claim is not None
        for request_id in others:
            new = replace(bound(asking(), parent, []), id=request_id)
            requests.open_request(conn, parent, 0, new)
        families.send_out(conn, parent, 0, Delegation(child, "plain", "Do it.", 1, "c9"), hint=LEASE)
        assert runs.park(conn, parent, claim.fence, version="1", usage={})
    return child


def can_be_had(pool: ledger.Pool, first: RunId, then: RunId, call: Callable[[], Response]) -> Response:
    """Hold `first`, let the call wait for it, and take `then` as well."""
    answers: list[Response] = []
    calling = threading.Thread(target=lambda: answers.append(call()))
    with ledger.transaction(pool) as conn:
        runs.lock(conn, first)
        calling.start()
        waiter = threading.Event()
        assert any(_somebody_waits(pool) or waiter.wait(0.02) for _ in range(500))
        conn.execute("SET LOCAL lock_timeout = '500ms'")
        runs.lock(conn, then)
    calling.join()
    return answers[0]


def _somebody_waits(pool: ledger.Pool) -> bool:
    with ledger.transaction(pool) as conn:
        return conn.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None


def statuses(site: Site, run_ids: Sequence[RunId]) -> set[RunStatus]:
    with ledger.transaction(site.gateway) as conn:
        return {runs.get(conn, run_id).status for run_id in run_ids}


def test_a_batch_and_what_it_delegated_is_stopped_in_one_order(site: Site, owner_pool: ledger.Pool) -> None:
    batch_id, [one, two] = a_batch(site, 2)
    below = delegated(site, one)
    other = delegated(site, two)
    deepest = delegated(site, below)
    headers = site.token(site.ben)

    answer = can_be_had(owner_pool, other, deepest, lambda: site.client.post(url(batch_id, "/cancel"), headers=headers))

    assert answer.status_code == 200
    assert statuses(site, [one, two, below, other, deepest]) == {RunStatus.CANCELLED}


def test_many_votes_of_which_one_stops_its_run_take_everything_in_one_order(
    site: Site, owner_pool: ledger.Pool
) -> None:
    asked = RequestId(ids.new())
    stopped = site.a_run()
    other, [second] = site.a_waiting_run()
    child = delegated(site, stopped, asked)
    headers = site.token(site.ana)
    with ledger.transaction(site.gateway) as conn:
        shown = [requests.get(conn, request_id) for request_id in (asked, second)]
    rows = [{"request_id": ids.show("req", row.id), "digest": row.digest.hex(), "revision": 1} for row in shown]
    body = {"votes": [rows[0] | {"verdict": "deny", "stop_run": True}, rows[1] | {"verdict": "approve"}]}

    answer = can_be_had(owner_pool, other, child, lambda: site.client.post("/v1/votes", json=body, headers=headers))

    assert [row["status"] for row in answer.json()["items"]] == [200, 200]
    assert statuses(site, [stopped, child]) == {RunStatus.CANCELLED}


def test_a_run_is_stopped_with_its_family_in_one_order(site: Site, owner_pool: ledger.Pool) -> None:
    top = site.a_run()
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, top, 0, owner="w", lease=LEASE)
        assert claim is not None
        one, two = RunId(ids.new()), RunId(ids.new())
        for number, child in enumerate((one, two)):
            families.send_out(conn, top, 0, Delegation(child, "plain", "Do it.", 1, f"c{number}"), hint=LEASE)
        assert runs.park(conn, top, claim.fence, version="1", usage={})
    below, other = delegated(site, one), delegated(site, two)
    deepest = delegated(site, below)
    headers = site.token(site.ben)

    answer = can_be_had(
        owner_pool, other, deepest, lambda: site.client.post(f"/v1/runs/{ids.show('run', top)}/cancel", headers=headers)
    )

    assert answer.status_code == 200
    assert statuses(site, [top, one, two, below, other, deepest]) == {RunStatus.CANCELLED}


def test_a_transaction_that_was_undone_for_another_is_no_outage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = site.a_run()
    headers = site.token(site.ben)

    def undone(*_: object) -> None:
        raise psycopg.errors.DeadlockDetected("deadlock detected")

    monkeypatch.setattr("banksman_gateway.door._REST_SECONDS", -1)
    before = site.parts.outage.until
    with monkeypatch.context() as patched:
        patched.setattr(runs, "lock", undone)
        answer = site.client.post(f"/v1/runs/{ids.show('run', run_id)}/cancel", headers=headers)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["type"] == "urn:banksman:problem:crossed"
    assert "reached" not in answer.text
    assert site.parts.outage.until == before


def a_child_that_asks(site: Site, parent: RunId, child: RunId, **requirement: object) -> RequestId:
    """A child run, parked behind a request of its own."""
    new = bound(asking(**requirement), child, [])  # pyright: ignore[reportArgumentType]
    with ledger.transaction(site.worker) as conn:
        claim = runs.claim(conn, child, 0, owner="w", lease=LEASE)
        assert claim is not None
        requests.open_request(conn, child, 0, new)
        assert runs.park(conn, child, claim.fence, version="1", usage={})
    return new.id


def test_who_denies_in_a_child_run_and_stops_stops_the_whole_family(site: Site) -> None:
    root = site.a_run()
    other = RequestId(ids.new())
    middle = delegated(site, root, other)
    child = delegated(site, middle)
    asked = a_child_that_asks(site, middle, child)

    denied = site.vote(asked, site.token(site.ana), verdict="deny", reason="No more of this.", stop_run=True)

    assert (denied.status_code, denied.json()["state"]) == (200, "denied")
    assert statuses(site, [root, middle, child]) == {RunStatus.CANCELLED}
    assert site.request(other)["state"] == "cancelled"
    late = site.vote(other, site.token(site.ben))
    assert "cancelled by ana@example.org" in late.json()["detail"]
    for run_id in (root, child):
        with ledger.transaction(site.gateway) as conn:
            assert "ana@example.org stopped the run at write_file: No more of this." in str(
                runs.get(conn, run_id).error
            )
            logged = [str(event.body) for event in audit.of_run(conn, run_id)]
        assert any("A person stopped it at one of its calls." in body for body in logged)
        assert not any("No more of this." in body or "ana@example.org" in body for body in logged)


@pytest.mark.parametrize("silence_means", ["stop", "deny"])
def test_silence_that_stops_a_child_run_stops_the_whole_family_as_a_denial_does(
    site: Site, owner_pool: ledger.Pool, silence_means: str
) -> None:
    root = site.a_run()
    child = delegated(site, root)
    a_child_that_asks(site, root, child, expires_after=0, on_expiry=silence_means)

    def sweep() -> Response:
        assert silence.act(site.parts) == 1
        return Response(200)

    if silence_means == "stop":
        can_be_had(owner_pool, root, child, sweep)
        assert statuses(site, [root, child]) == {RunStatus.CANCELLED}
    else:
        sweep()
        assert (statuses(site, [root]), statuses(site, [child])) == ({RunStatus.WAITING}, {RunStatus.QUEUED})


def test_who_only_denies_in_a_child_run_lets_the_family_go_on(site: Site) -> None:
    root = site.a_run()
    child = delegated(site, root)
    asked = a_child_that_asks(site, root, child)

    site.vote(asked, site.token(site.ana), verdict="deny")

    assert statuses(site, [root]) == {RunStatus.WAITING}
    assert statuses(site, [child]) == {RunStatus.QUEUED}


def test_a_vote_that_stops_a_family_takes_the_ancestor_first(site: Site, owner_pool: ledger.Pool) -> None:
    root = site.a_run()
    child = delegated(site, root)
    asked = a_child_that_asks(site, root, child)
    headers = site.token(site.ana)

    answer = can_be_had(
        owner_pool, root, child, lambda: site.vote(asked, headers, verdict="deny", reason="No.", stop_run=True)
    )

    assert answer.status_code == 200
    assert statuses(site, [root, child]) == {RunStatus.CANCELLED}


def test_one_of_many_votes_that_stops_its_family_takes_the_ancestor_first(site: Site, owner_pool: ledger.Pool) -> None:
    root = site.a_run()
    child = delegated(site, root)
    asked = a_child_that_asks(site, root, child)
    headers = site.token(site.ana)
    shown = site.request(asked)
    vote = {"request_id": shown["id"], "verdict": "deny", "digest": shown["digest"], "revision": 1, "stop_run": True}

    answer = can_be_had(
        owner_pool, root, child, lambda: site.client.post("/v1/votes", json={"votes": [vote]}, headers=headers)
    )

    assert [row["status"] for row in answer.json()["items"]] == [200]
    assert statuses(site, [root, child]) == {RunStatus.CANCELLED}
