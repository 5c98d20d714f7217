"""Silence: what happens to a request that nobody decides in time."""

from __future__ import annotations

import psycopg
import pytest
import redis

from banksman import ledger
from banksman.ledger import audit, requests, runs
from banksman.states import RequestState, RunStatus
from banksman_gateway import silence
from tests.conftest import Database
from tests.gateway.scenes import Site, asking


def test_silence_expires_the_request_and_the_run_goes_on(site: Site, broker: str) -> None:
    run_id, [overdue] = site.a_waiting_run(asking(expires_after=0))

    assert silence.act(site.parts) == 1
    assert silence.act(site.parts) == 0

    with ledger.transaction(site.gateway) as conn:
        assert requests.get(conn, overdue).state is RequestState.EXPIRED
        assert runs.get(conn, run_id).status is RunStatus.QUEUED
        told = [(event.action, event.actor) for event in audit.of_run(conn, run_id)]
    assert ("request.expired", "gateway") in told
    with redis.Redis.from_url(broker) as queue:
        assert queue.llen("runs.resume") == 1
    assert site.request(overdue)["decision"] is None


def test_a_run_still_waits_for_what_is_not_overdue(site: Site) -> None:
    run_id, [overdue, open_] = site.a_waiting_run(asking("c1", expires_after=0), asking("c2"))

    silence.act(site.parts)

    with ledger.transaction(site.gateway) as conn:
        assert requests.get(conn, overdue).state is RequestState.EXPIRED
        assert requests.get(conn, open_).state is RequestState.OPEN
        assert runs.get(conn, run_id).status is RunStatus.WAITING


def test_where_silence_means_stop_the_run_ends(site: Site) -> None:
    run_id, [overdue, other] = site.a_waiting_run(asking("c1", expires_after=0, on_expiry="stop"), asking("c2"))

    silence.act(site.parts)

    with ledger.transaction(site.gateway) as conn:
        assert runs.get(conn, run_id).status is RunStatus.CANCELLED
        assert requests.get(conn, overdue).state is RequestState.EXPIRED
        assert requests.get(conn, other).state is RequestState.CANCELLED


def test_a_vote_after_the_deadline_is_too_late_even_before_the_sweep(site: Site) -> None:
    _, [overdue] = site.a_waiting_run(asking(expires_after=0))

    answer = site.vote(overdue, site.token(site.ana))

    assert answer.status_code == 409
    assert answer.json()["current"]["state"] == "expired"


def test_a_row_that_cannot_be_read_keeps_no_other_from_expiring(
    site: Site, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_AT_ONCE", 2)
    bad = [site.a_waiting_run(asking(expires_after=0))[1][0] for _ in range(3)]
    good = [site.a_waiting_run(asking(expires_after=0))[1][0] for _ in range(3)]
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE requests SET requirement = '{}' WHERE id = ANY(%s)", (bad,))

    assert silence.act(site.parts) == 3

    with ledger.transaction(site.gateway) as conn:
        assert {requests.get(conn, request_id).state for request_id in good} == {RequestState.EXPIRED}
