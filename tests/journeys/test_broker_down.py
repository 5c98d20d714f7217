"""The story of a broker that hangs, dies or forgets: it only says look, so nothing is lost and nobody is refused."""

from __future__ import annotations

import time

import redis

from tests.journeys.outsider import Outsider, Shape
from tests.journeys.stacks import Stack

ANSWERED_WITHIN = 15.0
FINISHED_WITHIN = 30.0
"""Seconds from the broker's return to the end of every run that waited for it."""


def test_submitting_and_voting_while_the_broker_hangs(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    voted = program.submit("clerk", "maple")
    [request] = ana.asked(voted["id"])

    with rough.hanging("valkey"):
        began = time.monotonic()
        submitted = program.submit("clerk", "alder")
        ana.decide(request, "approve")
        took = time.monotonic() - began
        ready = program.http.get("/readyz")

    assert took < ANSWERED_WITHIN
    assert ready.status_code == 200
    _all_end(program, ana, voted, submitted)
    assert [len(rough.lines(word)) for word in ("maple", "alder")] == [1, 1]


def test_submitting_and_voting_while_the_broker_is_gone(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    voted = program.submit("clerk", "willow")
    [request] = ana.asked(voted["id"])

    with rough.gone("valkey"):
        began = time.monotonic()
        submitted = program.submit("clerk", "aspen")
        ana.decide(request, "approve")
        took = time.monotonic() - began

    assert took < ANSWERED_WITHIN

    _all_end(program, ana, voted, submitted)
    assert [len(rough.lines(word)) for word in ("willow", "aspen")] == [1, 1]


def test_a_broker_that_forgets_everything_loses_nothing(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    parked = program.submit("clerk", "beech")
    [request] = ana.asked(parked["id"])

    many = [program.submit("clerk", f"larch{number}") for number in range(5)]
    _flush(rough)
    ana.decide(request, "approve")
    _flush(rough)

    _all_end(program, ana, parked, *many)
    assert len(rough.lines("beech")) == 1
    assert all(len(rough.lines(f"larch{number}")) == 1 for number in range(5))


def _all_end(program: Outsider, ana: Outsider, *runs: Shape) -> None:
    """Every run comes to its end in time, what it still asks being approved."""
    deadline = time.monotonic() + FINISHED_WITHIN
    for run in runs:
        if not [item for item in program.requests(run["id"]) if item["state"] == "approved"]:
            [request] = ana.asked(run["id"], within=deadline - time.monotonic())
            ana.decide(request, "approve")
        program.ended(run["id"], within=deadline - time.monotonic())


def _flush(stack: Stack) -> None:
    with redis.Redis.from_url(str(stack.facts["broker_url"])) as client:
        client.flushall()
