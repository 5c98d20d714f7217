"""Runs move only as `states.RUN_MOVES` says: every ledger function is called from every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from banksman import ids, ledger
from banksman.ids import RunId
from banksman.ledger import Connection, rescue, restore, runs, snapshots
from banksman.records import NewRun, Snapshot
from banksman.states import FINAL, RUN_MOVES, Move, RunStatus

HOUR = timedelta(hours=1)
PAST = timedelta(seconds=-1)


def a_run(pool: ledger.Pool) -> RunId:
    run_id = RunId(ids.new())
    with ledger.transaction(pool) as conn:
        runs.create(conn, NewRun(run_id, "plain", "Do it.", "somebody@example.org"), hint=PAST)
    return run_id


def in_state(
    status: RunStatus, gateway: ledger.Pool, worker: ledger.Pool, *, lease: timedelta = HOUR
) -> tuple[RunId, int]:
    """A run brought into a state by real moves, and the fence of whoever held it last."""
    run_id = a_run(gateway)
    fence = 0
    with ledger.transaction(worker) as conn:
        if status not in (RunStatus.QUEUED, RunStatus.STUCK, RunStatus.CANCELLED):
            claim = runs.claim(conn, run_id, 0, owner="w", lease=lease)
            assert claim is not None
            fence = claim.fence
        match status:
            case RunStatus.WAITING:
                assert runs.park(conn, run_id, fence, version="1", usage={})
            case RunStatus.FINISHED:
                assert runs.finish(conn, run_id, fence, output="done", version="1", usage={})
            case RunStatus.FAILED:
                assert runs.fail(conn, run_id, fence, error="broken")
            case RunStatus.STUCK:
                assert runs.dispatch(conn, window=9, redispatch=HOUR, max_attempts=0)
            case _:
                pass
    if status is RunStatus.CANCELLED:
        with ledger.transaction(gateway) as conn:
            runs.cancel(conn, [run_id])
    return run_id, fence


def asked_to_stop_while_handed_back(run_id: RunId, gateway: ledger.Pool, worker: ledger.Pool) -> None:
    with ledger.transaction(worker) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)
        assert claim is not None
    with ledger.transaction(gateway) as conn:
        runs.cancel(conn, [run_id])
    with ledger.transaction(worker) as conn:
        runs.release(conn, {run_id: claim.fence})


Caller = Callable[[Connection, RunId, int, int], object]

CALLS: dict[str, tuple[str, Caller]] = {
    "claim": ("worker", lambda c, r, f, s: runs.claim(c, r, s, owner="w2", lease=HOUR)),
    "park": ("worker", lambda c, r, f, s: runs.park(c, r, f, version="1", usage={})),
    "finish": ("worker", lambda c, r, f, s: runs.finish(c, r, f, output=None, version="1", usage={})),
    "fail": ("worker", lambda c, r, f, s: runs.fail(c, r, f, error="no")),
    "stop": ("worker", lambda c, r, f, s: runs.stop(c, r, f)),
    "release": ("worker", lambda c, r, f, s: runs.release(c, {r: f})),
    "postpone": ("worker", lambda c, r, f, s: runs.postpone(c, r, f, error="no", delay=HOUR, counted=True)),
    "dispatch": ("worker", lambda c, r, f, s: runs.dispatch(c, window=9, redispatch=HOUR, max_attempts=9)),
    "bury": ("worker", lambda c, r, f, s: runs.dispatch(c, window=9, redispatch=HOUR, max_attempts=0)),
    "bury_cancelled": ("worker", lambda c, r, f, s: rescue.bury_cancelled(c)),
    "wake": ("gateway", lambda c, r, f, s: runs.wake(c, r, hint=HOUR)),
    "doubt": ("owner", lambda c, r, f, s: restore.doubt(c, None)),
    "retry": ("gateway", lambda c, r, f, s: rescue.retry(c, r)),
    "give_up": ("gateway", lambda c, r, f, s: rescue.give_up(c, r, error="no")),
    "revive": ("gateway", lambda c, r, f, s: rescue.revive(c, [r])),
    "cancel": ("gateway", lambda c, r, f, s: runs.cancel(c, [r])),
}


def test_every_move_has_a_function_and_every_function_a_move() -> None:
    assert {move.by for move in RUN_MOVES} == set(CALLS)


@pytest.mark.parametrize("start", list(RunStatus))
@pytest.mark.parametrize("move", RUN_MOVES, ids=lambda move: move.by)
def test_a_run_leaves_only_the_states_that_its_move_may_leave(
    move: Move, start: RunStatus, gateway_pool: ledger.Pool, worker_pool: ledger.Pool, owner_pool: ledger.Pool
) -> None:
    takes_over = move.by in ("claim", "dispatch", "bury", "bury_cancelled") and start is RunStatus.RUNNING
    run_id, fence = in_state(start, gateway_pool, worker_pool, lease=PAST if takes_over else HOUR)
    role, call = CALLS[move.by]
    if move.by == "bury_cancelled" and start is RunStatus.QUEUED:
        asked_to_stop_while_handed_back(run_id, gateway_pool, worker_pool)
    if move.by in ("stop", "bury_cancelled") and start is RunStatus.RUNNING:
        with ledger.transaction(gateway_pool) as conn:
            runs.cancel(conn, [run_id])

    with ledger.transaction({"worker": worker_pool, "gateway": gateway_pool, "owner": owner_pool}[role]) as conn:
        segment = runs.get(conn, run_id).segment
        call(conn, run_id, fence, segment)

    with ledger.transaction(gateway_pool) as conn:
        after = runs.get(conn, run_id)
    expected = move.target if start in move.origins else start
    assert after.status is expected
    assert (after.finished_at is not None) == (after.status in FINAL)


def test_a_write_with_an_old_fence_changes_nothing(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    run_id, old = in_state(RunStatus.RUNNING, gateway_pool, worker_pool, lease=PAST)
    with ledger.transaction(worker_pool) as conn:
        claim = runs.claim(conn, run_id, 0, owner="another", lease=HOUR)
        assert claim is not None

    with ledger.transaction(worker_pool) as conn:
        answers = [
            runs.park(conn, run_id, old, version="1", usage={}),
            runs.finish(conn, run_id, old, output="stolen", version="1", usage={}),
            runs.fail(conn, run_id, old, error="stolen"),
            runs.postpone(conn, run_id, old, error="stolen", delay=HOUR, counted=True),
            snapshots.save(conn, run_id, old, Snapshot(seq=0, segment=0, kept=0, messages=b"[]", state=b"{}")),
        ]
        beaten = runs.beat(conn, {run_id: old}, lease=HOUR)

    assert answers == [False] * 5
    assert beaten == {}
    with ledger.transaction(worker_pool) as conn:
        assert runs.get(conn, run_id).status is RunStatus.RUNNING


def test_past_its_lease_a_worker_commits_nothing_even_before_another_takes_over(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    run_id, fence = in_state(RunStatus.RUNNING, gateway_pool, worker_pool, lease=PAST)

    with ledger.transaction(worker_pool) as conn:
        answers = [
            runs.park(conn, run_id, fence, version="1", usage={}),
            runs.finish(conn, run_id, fence, output="late", version="1", usage={}),
            runs.fail(conn, run_id, fence, error="late"),
            snapshots.save(conn, run_id, fence, Snapshot(seq=0, segment=0, kept=0, messages=b"[]", state=b"{}")),
        ]

    assert answers == [False] * 4
    with ledger.transaction(worker_pool) as conn:
        assert runs.get(conn, run_id).status is RunStatus.RUNNING


def test_a_snapshot_that_another_worker_wrote_first_stays(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    run_id, fence = in_state(RunStatus.RUNNING, gateway_pool, worker_pool)
    snapshot = Snapshot(seq=0, segment=0, kept=0, messages=b"[]", state=b"{}")

    with ledger.transaction(worker_pool) as conn:
        answers = [snapshots.save(conn, run_id, fence, snapshot) for _ in range(2)]

    assert answers == [True, False]


def test_of_two_claims_one_wins(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    run_id = a_run(gateway_pool)

    with ledger.transaction(worker_pool) as conn:
        first = runs.claim(conn, run_id, 0, owner="one", lease=HOUR)
        second = runs.claim(conn, run_id, 0, owner="two", lease=HOUR)

    assert first is not None
    assert second is None


def test_the_dispatcher_lets_out_no_more_than_its_window(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    for _ in range(5):
        a_run(gateway_pool)

    with ledger.transaction(worker_pool) as conn:
        first = runs.dispatch(conn, window=3, redispatch=HOUR, max_attempts=5)
        second = runs.dispatch(conn, window=3, redispatch=HOUR, max_attempts=5)

    assert len(first) == 3
    assert second == []


def test_resumed_runs_go_before_new_ones(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    a_run(gateway_pool)
    parked, _ = in_state(RunStatus.WAITING, gateway_pool, worker_pool)
    with ledger.transaction(gateway_pool) as conn:
        assert runs.wake(conn, parked, hint=PAST) == 1

    with ledger.transaction(worker_pool) as conn:
        due = runs.dispatch(conn, window=1, redispatch=HOUR, max_attempts=5)

    assert [(item.run_id, item.segment) for item in due] == [(parked, 1)]


def test_a_dead_workers_run_goes_before_new_ones(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    a_run(gateway_pool)
    begun, _ = in_state(RunStatus.RUNNING, gateway_pool, worker_pool, lease=timedelta())

    with ledger.transaction(worker_pool) as conn:
        due = runs.dispatch(conn, window=1, redispatch=HOUR, max_attempts=5)

    # It may wait for a person's word on what its worker did; a batch of new runs must not stand before that.
    assert [(item.run_id, item.segment) for item in due] == [(begun, 0)]


def test_a_run_asked_to_stop_whose_segment_broke_is_buried_before_it_would_be_tried_again(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    run_id, fence = in_state(RunStatus.RUNNING, gateway_pool, worker_pool)
    with ledger.transaction(gateway_pool) as conn:
        runs.cancel(conn, [run_id])
    with ledger.transaction(worker_pool) as conn:
        held = rescue.bury_cancelled(conn)
        assert runs.postpone(conn, run_id, fence, error="broke", delay=HOUR, counted=True)

    with ledger.transaction(worker_pool) as conn:
        buried = rescue.bury_cancelled(conn)

    assert (held, buried) == ([], [run_id])
