"""Voters: who may vote on a request, by which way in, and whether those who agreed are enough.

The page asks before it shows a form, `decide` asks again in the transaction that votes, and once more of everybody
who agreed earlier: whoever was disabled, or has left the group, no longer counts. Nobody counts twice, whatever rows
there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Literal

from banksman import quorum
from banksman.ledger import Connection, people
from banksman.records import Request, Requirement, Vote
from banksman.states import Kind, Tier
from banksman_gateway import stand_ins
from banksman_gateway.stand_ins import Standing

Channel = Literal["session", "token", "link", "key"]

CHANNELS: dict[Tier, frozenset[str]] = {
    Tier.LOW: frozenset({"session", "token", "link"}),
    Tier.MEDIUM: frozenset({"session", "token"}),
    Tier.HIGH: frozenset({"session"}),
}


Seat = tuple[Vote, Standing | None]
"""A vote that counts, and for what its voter stands; None for an API key."""


def hindrance(request: Request, requirement: Requirement, who: Standing, channel: str) -> str | None:
    """Why this person's vote does not count here, in words for them; None when it does."""
    own, audience = quorum.standing(who.person), quorum.audience(requirement, request.age)
    if not own:
        why = "your account has been disabled" if who.person.disabled else "you are not a reviewer"
        return f"You may read this, but {why}, so you cannot decide."
    if who.groups.isdisjoint(audience) and not own.isdisjoint(audience):
        until = max(until for group, (_, until) in who.person.fresh.items() if group in audience)
        return (
            "You were given that role or group after this was asked, so your vote does not count here before"
            f" {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
        )
    if who.groups.isdisjoint(audience):
        return f"This waits for {' or '.join(sorted(audience))}. You are not in that group, so you cannot decide."
    if request.kind in (Kind.APPROVAL, Kind.OUTCOME) and request.asked_by(who.person):
        return "You asked for this run, so somebody else must decide on it."
    if channel not in CHANNELS[requirement.tier]:
        return f"Tier {requirement.tier.value} cannot be decided by {_way(channel)}. Sign in to decide."
    return None


def counting(
    conn: Connection, request: Request, agreed: Sequence[Vote], voter: Standing | None
) -> tuple[Sequence[Seat], bool]:
    """Of these votes, the last one of them just cast, those that count now; and whether they are enough."""
    if voter is None or _one_is_enough(request):
        return [(agreed[-1], voter)], True
    by = {item.person_id: item for item in agreed if item.person_id is not None}
    known = stand_ins.standing(conn, request, people.named(conn, list(by)).values(), agreed)
    counted = [
        (item, known[person_id])
        for person_id, item in by.items()
        if hindrance(request, request.requirement, known[person_id], item.channel) is None
        and not (request.tier is Tier.HIGH and person_id == request.author_id)
    ]
    return counted, quorum.met(request.requirement, [who.groups for _, who in counted], request.age)


def _one_is_enough(request: Request) -> bool:
    """Whether whoever may vote decides alone: nobody else has to be looked at."""
    needed = request.requirement
    most = max(needed.groups.values(), default=0)
    return needed.approvals == 1 and request.tier is not Tier.HIGH and len(needed.groups) < 2 and most < 2


def _way(channel: str) -> str:
    return {"link": "a mailed link", "token": "a token", "key": "an API key"}.get(channel, channel)
