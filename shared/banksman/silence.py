"""What comes when while nobody decides: the reminders, the rungs and the deadline that a requirement names.

Everything is counted in seconds from the opening of the request, by the database's clock, from the requirement that was
frozen then. A look that comes late (the gateway was down) finds several things due at once: each rung once, one
reminder for all that were missed, and no reminder beside a deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from banksman.records import Requirement, Rung


@dataclass(frozen=True, slots=True)
class Due:
    """What has come due on an open request since it was looked at last."""

    rungs: Sequence[Rung]
    reminds: bool
    next: timedelta | None
    """When, after the opening, there is something to do before the deadline; None when there is nothing more."""


def first(requirement: Requirement) -> timedelta:
    """How long after the opening somebody must look for the first time."""
    return timedelta(seconds=min([requirement.expires_after, *_steps(requirement)]))


def due(requirement: Requirement, since: timedelta, age: timedelta) -> Due:
    """What has come due between one age of the request and another, both included."""

    def came(after: int) -> bool:
        return since <= timedelta(seconds=after) <= age

    return Due(
        rungs=[rung for rung in requirement.escalation if came(rung.after)],
        reminds=any(map(came, requirement.reminders)),
        next=min((at for after in _steps(requirement) if (at := timedelta(seconds=after)) > age), default=None),
    )


def _steps(requirement: Requirement) -> Sequence[int]:
    return [*requirement.reminders, *(rung.after for rung in requirement.escalation)]
