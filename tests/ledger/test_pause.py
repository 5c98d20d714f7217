"""A paused agent: nothing of it starts, nothing of it is lost, and its waiting runs cost nothing meanwhile."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from banksman import ids, ledger
from banksman.ids import RunId
from banksman.ledger import agents, rescue, runs
from banksman.records import Due, NewRun, Person
from banksman.states import RunStatus

HOUR = timedelta(hours=1)
PAST = timedelta(seconds=-1)


@pytest.fixture(autouse=True)
def announced(worker_pool: ledger.Pool) -> None:
    with ledger.transaction(worker_pool) as conn:
        agents.announce(conn, {"refunds": ("1", {}), "plain": ("1", {})})


def a_run(pool: ledger.Pool, agent: str = "refunds") -> RunId:
    run_id = RunId(ids.new())
    with ledger.transaction(pool) as conn:
        runs.create(conn, NewRun(run_id, agent, "Do it.", "somebody@example.org"), hint=PAST)
    return run_id


def pause(pool: ledger.Pool, person: Person, agent: str = "refunds") -> None:
    with ledger.transaction(pool) as conn:
        assert agents.pause(conn, agent, person.id)


def resume(pool: ledger.Pool, agent: str = "refunds") -> None:
    with ledger.transaction(pool) as conn:
        assert agents.resume(conn, agent)


def look(conn: ledger.Connection, *, window: int = 9, max_attempts: int = 5) -> list[Due]:
    """What the dispatcher does."""
    paused = agents.set_aside(conn)
    return list(runs.dispatch(conn, window=window, redispatch=HOUR, max_attempts=max_attempts, paused=paused))


def looked(pool: ledger.Pool, *, window: int = 9, max_attempts: int = 5) -> list[RunId]:
    with ledger.transaction(pool) as conn:
        return [due.run_id for due in look(conn, window=window, max_attempts=max_attempts)]


def set_aside(pool: ledger.Pool) -> dict[RunId, str]:
    """The runs that wait for a resumption, each with the transaction that touched it last."""
    with ledger.transaction(pool) as conn:
        rows = conn.execute(
            "SELECT id, xmin::text FROM runs WHERE status = 'queued' AND due_at = 'infinity' AND NOT dispatched"
        ).fetchall()
    return dict(rows)


def test_no_worker_claims_a_run_of_a_paused_agent_until_it_is_resumed(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    run_id, other = a_run(gateway_pool), a_run(gateway_pool, "plain")
    pause(gateway_pool, reviewers[0])

    with ledger.transaction(worker_pool) as conn:
        held = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)
        free = runs.claim(conn, other, 0, owner="w", lease=HOUR)
    resume(gateway_pool)
    with ledger.transaction(worker_pool) as conn:
        after = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)

    assert held is None
    assert free is not None
    assert after is not None


def test_each_waiting_run_is_set_aside_once_and_none_takes_a_place_in_the_window(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    waiting = {a_run(gateway_pool) for _ in range(5)}
    pause(gateway_pool, reviewers[0])
    other = a_run(gateway_pool, "plain")

    first = looked(worker_pool, window=1)
    touched = set_aside(worker_pool)
    second = looked(worker_pool, window=1)

    assert first == [other]
    assert second == []
    assert set(touched) == waiting
    assert set_aside(worker_pool) == touched
    resume(gateway_pool)
    assert set(looked(worker_pool, window=9)) == waiting


def test_a_run_of_a_dead_worker_is_taken_from_it_and_waits_with_its_attempts(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    dead, alive = a_run(gateway_pool), a_run(gateway_pool)
    with ledger.transaction(worker_pool) as conn:
        lost = runs.claim(conn, dead, 0, owner="dead", lease=PAST)
        kept = runs.claim(conn, alive, 0, owner="alive", lease=HOUR)
    assert lost is not None
    assert kept is not None
    pause(gateway_pool, reviewers[0])

    assert looked(worker_pool, max_attempts=1) == []

    assert set(set_aside(worker_pool)) == {dead}
    with ledger.transaction(worker_pool) as conn:
        assert not runs.finish(conn, dead, lost.fence, output="stolen", version="1", usage={})
        assert runs.finish(conn, alive, kept.fence, output="done", version="1", usage={})
    resume(gateway_pool)
    looked(worker_pool, max_attempts=1)
    with ledger.transaction(worker_pool) as conn:
        assert runs.get(conn, dead).status is RunStatus.STUCK


def test_a_run_that_was_set_aside_is_cancelled_at_once_and_one_of_a_dead_worker_is_buried(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    aside, dying = a_run(gateway_pool), a_run(gateway_pool)
    with ledger.transaction(worker_pool) as conn:
        assert runs.claim(conn, dying, 0, owner="dead", lease=PAST)
    with ledger.transaction(gateway_pool) as conn:
        assert runs.cancel(conn, [dying]) == {dying: RunStatus.RUNNING}
    pause(gateway_pool, reviewers[0])
    looked(worker_pool)
    assert set(set_aside(worker_pool)) == {aside}

    with ledger.transaction(gateway_pool) as conn:
        cancelled = runs.cancel(conn, [aside])
    with ledger.transaction(worker_pool) as conn:
        buried = rescue.bury_cancelled(conn)

    assert cancelled == {aside: RunStatus.CANCELLED}
    assert buried == [dying]


def test_a_worker_that_starts_does_not_end_a_pause(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    pause(gateway_pool, reviewers[0])

    with ledger.transaction(worker_pool) as conn:
        agents.announce(conn, {"refunds": ("2", {})})

    with ledger.transaction(gateway_pool) as conn:
        found = agents.get(conn, "refunds")
    assert (found.version, found.paused_by) == ("2", "ana@example.org")


def test_what_a_dispatcher_sets_aside_while_the_agent_is_resumed_is_not_lost(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    run_id = a_run(gateway_pool)
    pause(gateway_pool, reviewers[0])
    resumed = threading.Event()

    def resume_it() -> None:
        resume(gateway_pool)
        resumed.set()

    with ledger.transaction(worker_pool) as conn:
        assert look(conn) == []
        thread = threading.Thread(target=resume_it)
        thread.start()
        waits = _waits_for_a_lock(gateway_pool)
        early = resumed.is_set()
    thread.join(20)

    assert waits
    assert not early
    assert set_aside(worker_pool) == {}
    assert looked(worker_pool) == [run_id]


def test_a_dispatcher_that_looks_while_the_agent_is_resumed_sets_nothing_aside_and_does_not_wait(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, reviewers: tuple[Person, Person]
) -> None:
    early, late = a_run(gateway_pool), a_run(gateway_pool)
    pause(gateway_pool, reviewers[0])
    with ledger.transaction(worker_pool) as conn:
        conn.execute("UPDATE runs SET due_at = clock_timestamp() + interval '1 hour' WHERE id = %s", (late,))
        look(conn)
        conn.execute("UPDATE runs SET due_at = clock_timestamp() - interval '1 second' WHERE id = %s", (late,))

    with ledger.transaction(gateway_pool) as conn:
        assert agents.resume(conn, "refunds")
        during = looked(worker_pool)

    assert during == [late]
    assert set_aside(worker_pool) == {}
    assert looked(worker_pool) == [early]


def _waits_for_a_lock(pool: ledger.Pool) -> bool:
    pause_ = threading.Event()
    for _ in range(200):
        with ledger.transaction(pool) as conn:
            row = conn.execute(
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock' AND usename = current_user
                """
            ).fetchone()
        if row is not None and row[0]:
            return True
        pause_.wait(0.02)
    return False
