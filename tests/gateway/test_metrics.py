"""What the gateway says of the whole deployment to whoever watches."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta

import pytest

from banksman import ledger
from banksman.ledger import gauges, runs
from banksman.states import Kind, Tier
from banksman_gateway import fresh
from tests.gateway.scenes import Site, asking

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every question comes an hour after the one before."""
    monkeypatch.setattr(fresh, "_SHARE", 0)
    monkeypatch.setattr(fresh.Fresh, "clock", staticmethod(itertools.count(0, 3600).__next__))


def numbers(site: Site) -> dict[str, float]:
    """What `/metrics` says, by name and labels, read anew."""
    found = site.client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(banksman_[^ ]+) (\S+)$", found, re.MULTILINE)}


def test_what_waits_is_told_by_kind_and_tier_and_how_long_the_oldest_has(site: Site) -> None:
    site.a_waiting_run(asking("c1", tier=Tier.HIGH), asking("c2", kind=Kind.OUTCOME))

    said = numbers(site)

    assert said['banksman_requests_open{kind="approval",tier="high"}'] == 1
    assert said['banksman_requests_open{kind="outcome",tier="medium"}'] == 1
    assert said['banksman_requests_open{kind="question",tier="low"}'] == 0
    assert said['banksman_requests_oldest_open_seconds{tier="high"}'] > 0
    assert said['banksman_requests_oldest_open_seconds{tier="low"}'] == 0
    assert said['banksman_runs{status="waiting"}'] == 1


def test_a_run_that_was_decided_and_not_taken_up_is_told_with_its_age(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    assert site.vote(request_id, site.token(site.ana)).status_code == 200

    said = numbers(site)

    assert said["banksman_runs_resuming"] == 1
    assert said["banksman_runs_resuming_longest_seconds"] > 0
    assert said["banksman_runs_sent"] == 1


def test_votes_decisions_and_ends_are_counted_once_from_the_first_reading_on(site: Site) -> None:
    _, [request_id] = site.a_waiting_run()
    assert numbers(site)['banksman_events_total{action="run.submitted"}'] == 0
    site.a_run()
    assert site.vote(request_id, site.token(site.ana)).status_code == 200

    for _ in range(3):
        said = numbers(site)

        assert said['banksman_events_total{action="run.submitted"}'] == 1
        assert said['banksman_requests_settled_total{state="approved"}'] == 1
        assert said['banksman_requests_settled_total{state="denied"}'] == 0


def test_what_is_due_and_what_lost_its_worker_is_told(site: Site) -> None:
    late, lost = site.a_run(), site.a_run()
    with ledger.transaction(site.worker) as conn:
        assert runs.claim(conn, lost, 0, owner="w", lease=-HOUR) is not None
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '90 s' WHERE id = %s", (late,))

    said = numbers(site)

    assert said["banksman_runs_lease_over"] == 1
    assert 3600 <= said["banksman_runs_due_lag_seconds"] < 7200


def test_what_an_operator_holds_is_not_late(site: Site) -> None:
    held = site.a_run()
    with ledger.transaction(site.worker) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '90 s' WHERE id = %s", (held,))
    with ledger.transaction(site.gateway) as conn:
        conn.execute("UPDATE agents SET paused_at = clock_timestamp(), paused_by = %s", (site.ana.id,))

    assert numbers(site)["banksman_runs_due_lag_seconds"] == 0


def test_the_seal_lags_by_the_oldest_event_that_is_not_sealed(site: Site) -> None:
    site.a_run()
    before = site.parts.seal
    assert numbers(site)["banksman_seal_lag_seconds"] > 0

    before.turn()

    assert before.head is not None
    with ledger.transaction(site.gateway) as conn:
        assert gauges.unsealed(conn, before.head.cursor) == timedelta()


def test_the_queues_tell_what_nobody_has_taken(site: Site) -> None:
    site.a_run()

    assert numbers(site)['banksman_queue_messages{queue="runs.start"}'] == 1


def test_many_readers_cost_one_reading(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    read: list[int] = []

    def count(_: ledger.Connection) -> int:
        read.append(1)
        return len(read)

    counted = fresh.Fresh(site.gateway, 3600, count)

    assert [counted.get() for _ in range(5)] == [1] * 5
