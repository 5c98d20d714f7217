"""The story of somebody who can write to the broker: they make a worker look at a row, and do nothing else to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from banksman import ids, wire
from banksman.wire import APPROVALS, RESUME, START, Hint
from tests.journeys.stacks import Stack
from tests.shared.test_wire import forged

_DROPPED = "A message was dropped."


@pytest.fixture
def broker(calm: Stack) -> Iterator[Any]:
    """The calm stack's broker, with every right."""
    with redis.Redis.from_url(str(calm.facts["broker_url"])) as client:
        yield client


def test_whatever_is_written_to_the_queues_runs_nothing_and_hurts_nobody(calm: Stack, broker: Any) -> None:
    program, ana = calm.program(), calm.reviewer()
    parked = program.submit("clerk", "rowan")
    [request] = ana.asked(parked["id"])
    before = _of(calm, parked["id"])
    said, pids = calm.said(), calm.pids
    bad = forged()

    for queue in (START, RESUME, APPROVALS):
        for _ in range(2):
            broker.lpush(queue, *bad.values())
    broker.lpush(START, *(_hint("start_run", *arguments) for arguments in ((), ("x", 0), (1, 2), (None,))))
    # In due form, for a run that waits: claimed by its state, so by nobody.
    run = ids.read("run", parked["id"]).hex
    broker.lpush(START, *(_hint("start_run", run, segment) for segment in range(4)))
    broker.lpush(RESUME, *(_hint("resume_run", run, segment) for segment in range(4)))

    calm.wait_for(lambda: not any(map(broker.llen, (START, RESUME, APPROVALS))), what="empty queues")
    expected = 6 * len(bad) + 4
    calm.wait_for(
        lambda: calm.said().count(_DROPPED) - said.count(_DROPPED) == expected, what=f"{expected} dropped messages"
    )
    after = program.submit("clerk", "hazel")
    [other] = ana.asked(after["id"])
    assert _of(calm, parked["id"]) == before
    assert calm.pids == pids
    assert calm.said().count("Traceback") == said.count("Traceback")

    for item in (request, other):
        ana.decide(item, "approve")
    program.ended(parked["id"])
    program.ended(after["id"])
    assert [len(calm.lines(word)) for word in ("rowan", "hazel")] == [1, 1]


def test_remote_control_finds_nobody(calm: Stack, broker: Any) -> None:
    program = calm.program()
    pids = calm.pids
    command: dict[str, Any] = {
        "method": "shutdown",
        "arguments": {},
        "destination": None,
        "pattern": None,
        "matcher": None,
    }
    shutdown = json.dumps(
        {
            "body": json.dumps(command),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"clock": 1, "expires": None},
            "properties": {
                "delivery_tag": "x",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
                "priority": 0,
            },
        }
    )

    heard = [broker.publish(name, shutdown) for name in ("/0.celery.pidbox", "/0.reply.celery.pidbox", "/0.celeryev")]
    for queue in (START, RESUME, APPROVALS):
        broker.lpush(queue, shutdown)

    assert heard == [0, 0, 0]
    run = program.submit("clerk", "alder")
    calm.reviewer().asked(run["id"])
    assert calm.pids == pids


def _hint(task: str, *arguments: object) -> str:
    return wire.message(Hint(task, list(arguments), datetime.now(UTC) + timedelta(minutes=1)))


def _of(stack: Stack, run_id: str) -> list[tuple[Any, ...]]:
    """Everything that anybody may have done to a run."""
    run = ids.read("run", run_id)
    return [
        *stack.query("SELECT status, segment, fence, attempts FROM runs WHERE id = %s", run),
        *stack.query("SELECT count(*) FROM executions WHERE run_id = %s", run),
        *stack.query(
            "SELECT action FROM audit_events WHERE run_id = %s AND action NOT LIKE 'notice.%%' ORDER BY id", run
        ),
    ]
