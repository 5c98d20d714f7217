"""Voters: who may vote on a request, by which way in, and whether those who agreed are enough.

The page asks before it shows a form, `decide` asks again in the transaction that votes, and once more of everybody
who agreed earlier: whoever was disabled, or has left the group, no longer counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from banksman import quorum
from banksman.ledger import Connection, people
from banksman.records import Person, Request, Requirement, Vote
from banksman.states import Kind, Tier

Channel = Literal["session", "token", "link", "key"]

CHANNELS: dict[Tier, frozenset[str]] = {
    Tier.LOW: frozenset({"session", "token", "link"}),
    Tier.MEDIUM: frozenset({"session", "token"}),
    Tier.HIGH: frozenset({"session"}),
}


def hindrance(request: Request, requirement: Requirement, person: Person, channel: str) -> str | None:
    """Why this person's vote does not count here, in words for them; None when it does."""
    standing, audience = quorum.standing(person), quorum.audience(requirement, request.age)
    if not standing:
        why = "your account has been disabled" if person.disabled else "you are not a reviewer"
        return f"You may read this, but {why}, so you cannot decide."
    if not audience.isdisjoint(standing - _settled(request, person)) and audience.isdisjoint(_settled(request, person)):
        until = max(until for group, (_, until) in person.fresh.items() if group in audience)
        return (
            "You were given that role or group after this was asked, so your vote does not count here before"
            f" {until:%Y-%m-%d %H:%M} UTC."
        )
    if standing.isdisjoint(audience):
        return f"This waits for {' or '.join(sorted(audience))}. You are not in that group, so you cannot decide."
    if request.kind in (Kind.APPROVAL, Kind.OUTCOME) and _is_requester(request, person):
        return "You asked for this run, so somebody else must decide on it."
    if channel not in CHANNELS[requirement.tier]:
        return f"Tier {requirement.tier.value} cannot be decided by {_way(channel)}. Sign in to decide."
    return None


def counting(conn: Connection, request: Request, agreed: Sequence[Vote]) -> tuple[Sequence[Vote], bool]:
    """Of these votes the ones that count now, and whether they are enough."""
    if request.requirement.approvals == 1 and request.tier is not Tier.HIGH:
        return agreed, True  # the one who votes has just been looked at
    known = people.named(conn, [item.person_id for item in agreed if item.person_id is not None])
    counted = [
        item
        for item in agreed
        if item.person_id is None
        or (
            hindrance(request, request.requirement, known[item.person_id], item.channel) is None
            and not (request.tier is Tier.HIGH and item.person_id == request.author_id)
        )
    ]
    groups = [_settled(request, known[item.person_id]) for item in counted if item.person_id is not None]
    return counted, quorum.met(request.requirement, groups, request.age)


def _settled(request: Request, person: Person) -> frozenset[str]:
    """The groups that a person votes for here: without those that they were given after it was asked, for a while."""
    now = request.created_at + request.age
    fresh = {group for group, (at, until) in person.fresh.items() if request.created_at < at and now < until}
    return quorum.standing(person) - fresh


def _is_requester(request: Request, person: Person) -> bool:
    return person.id == request.requester_id or person.email.casefold() == request.requester.casefold()


def _way(channel: str) -> str:
    return {"link": "a mailed link", "token": "a token", "key": "an API key"}.get(channel, channel)
