"""No action twice, none forged, nothing lost: random moves on the real ledger and gateway, held against a plain model.

Several workers claim, park, start, finish and crash; some are taken for dead and go on with their old fences. People
vote, edit, stop and are disabled; deadlines and leases pass. After each move the database must say what the model says,
and keep what was promised. `BANKSMAN_HYPOTHESIS=long` tries 2,000 other orders of events, new ones each time; `quick`
says that something is wrong without looking for its shortest story.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine
from tests.model.promises import World

REACHED = {
    *("claimed", "parked", "not parked", "approved", "denied", "counted", "refused", "started", "ended late"),
    *("start: lost", "start: doubt", "start: _Replay"),
}
RARELY = {
    *("finished", "not finished", "not claimed", "answered", "edited", "stopped by a vote", "expired", "cancelled"),
    *("stuck", "retried", "ended", "run again", "start: again", "start: forged", "start: _Told"),
}
PROFILE = os.environ.get("BANKSMAN_HYPOTHESIS", "")
LONG = PROFILE == "long"


def test_whatever_happens_in_whatever_order_the_promises_hold(world: World) -> None:
    run_state_machine_as_test(
        lambda: Machine(world),  # pyright: ignore[reportArgumentType]
        settings=settings(
            max_examples=2000 if LONG else 36,
            stateful_step_count=80 if LONG else 40,
            derandomize=not LONG,
            phases=tuple(Phase) if PROFILE != "quick" else [Phase.generate],
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )

    # Orders of events that never reach what can go wrong would prove nothing.
    assert world.reached.keys() >= (REACHED | RARELY if LONG else REACHED)
