"""The crash points by name: where which process dies, and what the dead process had done outside until then."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from tests.chaos.launcher import Point


@dataclass(frozen=True, slots=True)
class Crash:
    """A point on a worker's way, how often the tool had taken effect there, and whether anybody is asked about it."""

    name: str
    point: Point
    effects: int = 0
    asked: bool = False


_JOURNAL = "banksman_worker.journal:Journal"
WORKER = (
    Crash("claimed", Point("banksman.ledger.snapshots:load", "before")),
    Crash("parking", Point("banksman.ledger.runs:park", "after")),
    Crash("parked", Point("banksman.wire:Wire.deliver", "before")),
    Crash("before-the-start", Point("banksman.ledger.executions:start", "before")),
    Crash("start-not-committed", Point("banksman.ledger.executions:start", "after")),
    Crash("started", Point(f"{_JOURNAL}._start", "after"), asked=True),
    Crash("in-the-tool", Point("tests.chaos.agents:outside", "after"), effects=1, asked=True),
    Crash("returned", Point("banksman.ledger.executions:finish", "before"), effects=1, asked=True),
    Crash("result-not-committed", Point("banksman.ledger.executions:finish", "after"), effects=1, asked=True),
    Crash("result-stored", Point(f"{_JOURNAL}._finish", "after"), effects=1),
    Crash("finishing", Point("banksman.ledger.runs:finish", "after"), effects=1),
    Crash("finished", Point("banksman.wire:Wire.changed", "before", nth=2), effects=1),
)
DISPATCHED = Point("banksman.wire:Wire.run", "before")
FROZEN = Point("banksman.ledger.runs:beat", "after", sign=signal.SIGSTOP)
LATE = Point(f"{_JOURNAL}._start", "after", sign=signal.SIGSTOP)
VOTING = (
    Crash("vote-not-committed", Point("banksman.ledger.votes:cast", "after")),
    Crash("decision-not-committed", Point("banksman.ledger.runs:wake", "after")),
)
DECIDED = Point("banksman.wire:Wire.run", "before")
SUBMITTING = (
    Crash("submission-not-committed", Point("banksman.ledger.runs:create", "after")),
    Crash("submitted", Point("banksman.wire:Wire.run", "before")),
)
NOTIFYING = (
    Crash("claimed-notice", Point("banksman_notifier.gateway:Gateway.links", "before")),
    Crash("mailed", Point("banksman_notifier.channels.email:_Way.send", "after"), effects=1),
    Crash("mailed-not-committed", Point("banksman.ledger.notices:sent", "after"), effects=1),
)
MAIL_RECORDED = Point("banksman.wire:Wire.changed", "before")

NAMES = [
    *(crash.name for crash in WORKER),
    "dispatched",
    "frozen-in-a-heartbeat",
    "frozen-before-the-call",
    *(crash.name for crash in (*SUBMITTING, *VOTING)),
    "decided",
    *(crash.name for crash in NOTIFYING),
    "mail-recorded",
]
"""Every point, in the order in which docs/guarantees.md tells of them."""
