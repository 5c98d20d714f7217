"""Who comes next: everybody who waits gets a share, caps hold, and 100,000 queued runs cost no more than a few."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import Counter
from datetime import timedelta

import psycopg
import pytest

from banksman import ids, ledger
from banksman.errors import Unavailable
from banksman.ids import BatchId, RunId
from banksman.ledger import agents, batches, caps, families, runs
from banksman.records import Cap, Delegation, Due, NewRun
from tests.conftest import Database

HOUR = timedelta(hours=1)
PAST = timedelta(seconds=-1)


@pytest.fixture(autouse=True)
def announced(worker_pool: ledger.Pool) -> None:
    with ledger.transaction(worker_pool) as conn:
        agents.announce(conn, {"refunds": ("1", {}), "plain": ("1", {})})


def a_run(pool: ledger.Pool, *, requester: str = "ana@example.org", agent: str = "plain", priority: int = 5) -> RunId:
    """A run that came alone, and whose wake-up was lost."""
    run_id = RunId(ids.new())
    with ledger.transaction(pool) as conn:
        runs.create(conn, NewRun(run_id, agent, "Do it.", requester, priority=priority), hint=PAST)
    return run_id


def a_batch(pool: ledger.Pool, count: int, *, agent: str = "plain", priority: int = 5) -> BatchId:
    batch_id = BatchId(ids.new())
    new = [
        NewRun(RunId(ids.new()), agent, "Do it.", "bot@example.org", priority=priority, line=number)
        for number in range(count)
    ]
    with ledger.transaction(pool) as conn:
        batches.create(conn, batch_id, name=None, requester="bot@example.org", requester_id=None)
        batches.load(conn, batch_id, new, actor="key_x")
    return batch_id


def look(pool: ledger.Pool, window: int, *limits: Cap) -> list[Due]:
    with ledger.transaction(pool) as conn:
        return list(runs.dispatch(conn, window=window, redispatch=HOUR, max_attempts=5, caps=limits))


def whose(pool: ledger.Pool, due: list[Due]) -> Counter[str]:
    """How many of them are of which batch, or of which agent where they came alone."""
    with ledger.transaction(pool) as conn:
        found = [runs.get(conn, item.run_id) for item in due]
    return Counter(str(run.batch_id or run.agent) for run in found)


def carried_on(pool: ledger.Pool, due: list[Due]) -> None:
    """All of them are claimed and finished."""
    with ledger.transaction(pool) as conn:
        for item in due:
            claim = runs.claim(conn, item.run_id, item.segment, owner="w", lease=HOUR)
            assert claim is not None
            assert runs.finish(conn, item.run_id, claim.fence, output=None, version="1", usage={})


def test_a_batch_starves_no_single_run_and_no_other_batch(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    large = a_batch(gateway_pool, 200)
    first = look(worker_pool, 10)
    small = a_batch(gateway_pool, 5)
    alone = a_run(gateway_pool)
    nothing = look(worker_pool, 10)
    carried_on(worker_pool, first[:4])

    second = look(worker_pool, 10)

    assert whose(worker_pool, first) == {str(large): 10}
    assert nothing == []
    assert alone in [item.run_id for item in second]
    assert whose(worker_pool, second) == {str(small): 3, "plain": 1}


def test_who_submits_many_runs_one_by_one_takes_turns_with_others(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    flood = [a_run(gateway_pool, requester="eve@example.org") for _ in range(20)]
    look(worker_pool, 5)
    late = [a_run(gateway_pool, requester="ana@example.org") for _ in range(2)]

    found = {item.run_id for item in look(worker_pool, 9)}

    assert set(late) <= found
    assert len(found & set(flood)) == 2


def test_a_higher_priority_comes_first_and_what_has_begun_before_that(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    a_batch(gateway_pool, 5)
    urgent, begun = a_run(gateway_pool, priority=9), a_run(gateway_pool, priority=0)
    with ledger.transaction(worker_pool) as conn:
        assert runs.claim(conn, begun, 0, owner="dead", lease=PAST)

    assert [item.run_id for item in look(worker_pool, 1)] == [begun]
    assert [item.run_id for item in look(worker_pool, 2)] == [urgent]


def test_the_dispatcher_sends_no_more_than_the_caps_allow_and_the_others_go_on(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    capped = a_batch(gateway_pool, 20, agent="refunds")
    other = a_batch(gateway_pool, 20)
    limits = (Cap("refunds", ["refunds"], 3), Cap("openai:x", ["refunds", "plain"], 8))

    first = look(worker_pool, 100, *limits)
    second = look(worker_pool, 100, *limits)

    assert whose(worker_pool, first) == {str(capped): 3, str(other): 5}
    assert second == []
    carried_on(worker_pool, first)
    assert len(look(worker_pool, 100, *limits)) == 8


def test_of_many_claims_at_once_no_more_are_admitted_than_the_cap_allows(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    made = [a_run(gateway_pool, agent="refunds") for _ in range(12)]
    limit = [Cap("refunds", ["refunds"], 3)]
    claimed: list[RunId] = []
    at_once = threading.Barrier(4)

    def take(mine: list[RunId]) -> None:
        at_once.wait(20)
        for run_id in mine:
            with ledger.transaction(worker_pool) as conn:
                if caps.admit(conn, run_id, 0, limit) and runs.claim(conn, run_id, 0, owner="w", lease=HOUR):
                    claimed.append(run_id)

    threads = [threading.Thread(target=take, args=(made[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(claimed) == 3
    with ledger.transaction(worker_pool) as conn:
        assert runs.finish(conn, claimed[0], 1, output=None, version="1", usage={})
    [next_] = look(worker_pool, 100, *limit)
    with ledger.transaction(worker_pool) as conn:
        assert caps.admit(conn, next_.run_id, 0, limit)
        assert runs.claim(conn, next_.run_id, 0, owner="w", lease=HOUR)


def test_a_paused_batch_starts_nothing_and_goes_on_where_it_was(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    batch_id = a_batch(gateway_pool, 5)
    sent = look(worker_pool, 2)
    with ledger.transaction(gateway_pool) as conn:
        assert batches.pause(conn, batch_id, "per_x")
        assert not batches.pause(conn, batch_id, "per_x")

    during = look(worker_pool, 100)
    with ledger.transaction(worker_pool) as conn:
        refused = runs.claim(conn, sent[0].run_id, 0, owner="w", lease=HOUR)
    with ledger.transaction(gateway_pool) as conn:
        assert batches.resume(conn, batch_id)

    assert during == []
    assert refused is None
    assert len(look(worker_pool, 100)) == 3
    carried_on(worker_pool, sent)


def test_the_wake_ups_of_a_paused_batch_take_nobodys_room(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    paused, other = a_batch(gateway_pool, 5), a_batch(gateway_pool, 5)
    limit = Cap("plain", ["plain"], 4)
    with ledger.transaction(gateway_pool) as conn:
        batches.pause(conn, other, "per_x")
    first = look(worker_pool, 4, limit)
    with ledger.transaction(gateway_pool) as conn:
        batches.pause(conn, paused, "per_x")
        batches.resume(conn, other)

    second = look(worker_pool, 4, limit)

    assert whose(worker_pool, first) == {str(paused): 4}
    assert whose(worker_pool, second) == {str(other): 4}


def children(pool: ledger.Pool, parent: Due, count: int, *, agent: str = "plain") -> set[RunId]:
    """What a run of a batch delegated before it paused; their wake-ups were lost."""
    tasks = [Delegation(RunId(ids.new()), agent, "Do it.", step=1, call_id=f"c{number}") for number in range(count)]
    with ledger.transaction(pool) as conn:
        claim = runs.claim(conn, parent.run_id, parent.segment, owner="w", lease=HOUR)
        assert claim is not None
        for task in tasks:
            families.send_out(conn, parent.run_id, parent.segment, task, hint=PAST)
        assert runs.park(conn, parent.run_id, claim.fence, version="1", usage={})
    return {task.child_id for task in tasks}


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_paused_batch_delegated_holds_nobody_up_and_goes_on_with_it(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool, begun: bool
) -> None:
    window = 4
    batch_id = a_batch(gateway_pool, 1)
    [parent] = look(worker_pool, window)
    held = children(worker_pool, parent, window + 1)
    if begun:  # each has waited for something and was woken
        with ledger.transaction(worker_pool) as conn:
            for run_id in held:
                claim = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)
                assert claim is not None
                assert runs.park(conn, run_id, claim.fence, version="1", usage={})
        with ledger.transaction(gateway_pool) as conn:
            assert [runs.wake(conn, run_id, hint=PAST) for run_id in held] == [1] * len(held)
    with ledger.transaction(gateway_pool) as conn:
        assert batches.pause(conn, batch_id, "per_x")

    paused = look(worker_pool, window)
    with ledger.transaction(gateway_pool) as conn:
        at_hand = conn.execute("SELECT work_at_hand()").fetchone()
    alone = a_run(gateway_pool)
    during = look(worker_pool, window)
    carried_on(worker_pool, during)
    with ledger.transaction(gateway_pool) as conn:
        assert batches.resume(conn, batch_id)
    after = look(worker_pool, window)
    carried_on(worker_pool, after)
    after += look(worker_pool, window)

    assert (paused, at_hand) == ([], (0,))
    assert [item.run_id for item in during] == [alone]
    assert {item.run_id for item in after} == held


def test_what_a_batch_delegated_shares_in_its_part_and_comes_before_its_next_lines(
    gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    a_batch(gateway_pool, 20)
    [parent] = look(worker_pool, 1)
    first = children(worker_pool, parent, 8)
    [below] = [item for item in look(worker_pool, 1) if item.run_id in first]
    deeper = children(worker_pool, below, 1)
    alone = [a_run(gateway_pool) for _ in range(20)]

    found = [item.run_id for item in look(worker_pool, 8)]

    assert len(set(found) & set(alone)) == 4
    assert len(set(found) & (first | deeper)) == 4


def test_what_is_past_its_lease_keeps_no_place_of_a_cap(gateway_pool: ledger.Pool, worker_pool: ledger.Pool) -> None:
    limit = [Cap("plain", ["plain"], 2)]
    paused = a_batch(gateway_pool, 2)
    with ledger.transaction(worker_pool) as conn:
        for item in runs.dispatch(conn, window=9, redispatch=HOUR, max_attempts=5):
            assert runs.claim(conn, item.run_id, item.segment, owner="dead", lease=PAST)
    with ledger.transaction(gateway_pool) as conn:
        batches.pause(conn, paused, "per_x")
    a_batch(gateway_pool, 1)

    [due] = look(worker_pool, 9, *limit)
    with ledger.transaction(worker_pool) as conn:
        assert caps.admit(conn, due.run_id, due.segment, limit)


def test_what_no_worker_can_carry_comes_ever_later_and_has_not_begun(
    database: Database, gateway_pool: ledger.Pool, worker_pool: ledger.Pool
) -> None:
    nowhere = a_run(gateway_pool, agent="refunds", priority=0)
    waits: list[int] = []
    for _ in range(8):
        with ledger.transaction(worker_pool) as conn:
            claim = runs.claim(conn, nowhere, 0, owner="w", lease=HOUR)
            assert claim is not None
            two = timedelta(seconds=2)
            assert runs.postpone(conn, nowhere, claim.fence, error="not here", delay=two, counted=False)
            row = conn.execute("SELECT EXTRACT(epoch FROM due_at - now()) FROM runs WHERE id = %s", (nowhere,))
            waits += [round(value) for (value,) in row]
    with ledger.transaction(worker_pool) as conn:
        run = runs.get(conn, nowhere)
    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE runs SET due_at = now() - interval '1 minute'")
    a_run(gateway_pool)

    assert (run.attempts, run.started_at) == (0, None)
    assert all(abs(wait - double) <= 1 for wait, double in zip(waits, (2, 4, 8, 16, 32, 60, 60, 60), strict=True))
    assert whose(worker_pool, look(worker_pool, 1)) == {"plain": 1}


def test_a_look_at_very_many_queued_runs_is_cheap(
    database: Database, gateway_pool: ledger.Pool, worker_pool: ledger.Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    count = int(os.environ.get("BANKSMAN_TEST_QUEUED", "5000"))
    for size, agent in ((count, "plain"), (count // 10, "refunds")):
        a_batch(gateway_pool, size, agent=agent)
    held = a_batch(gateway_pool, count)
    with ledger.transaction(gateway_pool) as conn:
        batches.pause(conn, held, "per_x")
    with psycopg.connect(database.owner, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    began = time.perf_counter()

    with psycopg.connect(database.worker) as conn:
        found = runs.dispatch(conn, window=50, redispatch=HOUR, max_attempts=5)
        row = conn.execute(
            "SELECT sum(seq_tup_read + COALESCE(idx_tup_fetch, 0))::int FROM pg_stat_xact_user_tables"
        ).fetchone()
        conn.rollback()

    with capsys.disabled():
        print(f"\na look at {count:,} queued runs: {(time.perf_counter() - began) * 1000:.1f} ms")  # noqa: T201
    assert len(found) == 50
    assert row is not None
    assert row[0] < 1000


def test_a_transaction_that_stood_still_too_long_is_something_that_may_pass(worker_pool: ledger.Pool) -> None:
    def stand_still() -> None:
        with ledger.transaction(worker_pool) as conn:
            conn.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
            select.select([conn.fileno()], [], [], 30)
            conn.execute("SELECT")

    with pytest.raises(Unavailable, match="idle-in-transaction"):
        stand_still()
