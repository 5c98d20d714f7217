"""Tally: who has agreed to what is asked now, what is still missing, and who may say it. For showing alone.

`decide` counts for itself, in its transaction. This counts by the same rules as often as somebody looks, so that a page
never promises what a vote would not get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from banksman import ids, quorum
from banksman.ids import PersonId, RequestId, VoteId
from banksman.ledger import Connection, absences
from banksman.ledger import people as staff
from banksman.links import LinkKeys
from banksman.records import Decision, Person, Request, Requirement, Vote
from banksman.states import Kind, RequestState, Tier, Verdict
from banksman_gateway import decide, late, stand_ins, voters
from banksman_gateway.stand_ins import Standing

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AGREES = (Verdict.APPROVE, Verdict.RERUN)


@dataclass(frozen=True, slots=True)
class Missing:
    """So many people more, of one of these groups; of whoever may vote, where no group is named."""

    count: int
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Called:
    """Groups that the ladder has called in, and since when."""

    groups: tuple[str, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class Tally:
    """How a request stands."""

    agreed: Sequence[VoteId]
    """The votes that count: towards what is missing, or, once it is decided, in the decision."""
    void: Mapping[VoteId, str]
    """Why each of the others does not count."""
    missing: Sequence[Missing] = ()
    may_decide: Sequence[str] = ()
    called: Sequence[Called] = ()
    instead_of: Mapping[VoteId, Sequence[str]] = field(default_factory=dict[VoteId, Sequence[str]])
    """Who is away while somebody else votes for their groups, by address."""

    @property
    def waits_for(self) -> str:
        """What is missing, in words: “one of engineering and one of security”."""
        return " and ".join(_words(item, more=bool(self.agreed)) for item in self.missing)


def of_each(
    conn: Connection, found: Sequence[tuple[Request, Sequence[Vote], Decision | None]], marks: LinkKeys
) -> dict[RequestId, Tally]:
    """The tallies of many requests, in two statements at most."""
    asked = {item.person_id for _, cast, _ in found for item in cast if item.person_id is not None}
    decided = [voter for _, _, decision in found if decision is not None for voter in late.voters_of(decision)]
    away = {PersonId(ids.read("per", one)) for voter in decided for one in voter["instead_of"]}
    known = staff.named(conn, asked | away) if asked | away else {}
    waiting = [request for request, cast, _ in found if cast and request.state is RequestState.OPEN]
    lenders = absences.lenders(conn, asked) if waiting and asked else {}
    return {
        request.id: _open(request, cast, marks, known, lenders)
        if request.state is RequestState.OPEN and not request.overdue
        else _settled(request, cast, marks, known, decision)
        for request, cast, decision in found
    }


def needs(requirement: Requirement) -> str:
    """What a requirement asks for, in words."""
    return " and ".join(_words(item, more=False) for item in missing(requirement, [], timedelta()))


def missing(requirement: Requirement, agreed: Sequence[frozenset[str]], age: timedelta) -> Sequence[Missing]:
    """What is missing beside these people, each given as the groups that they stand for; nothing when it is enough.

    As many of them as possible are seated. A place that stays empty can also be filled by way of whoever could move to
    it, so each names every group that would help.
    """
    anywhere = quorum.called(requirement, age)
    places = [group for group, count in sorted(requirement.groups.items()) for _ in range(count)]
    fits = [
        {place for place, group in enumerate(places) if group in groups or not anywhere.isdisjoint(groups)}
        for groups in agreed
    ]
    seated: dict[int, int] = {}
    for person in range(len(fits)):
        _seat(person, fits, seated, set())
    empty = [place for place in range(len(places)) if place not in seated]
    found: dict[tuple[str, ...], int] = {}
    for place in empty:
        helps = tuple(sorted({places[other] for other in _reach(place, fits, seated)} | anywhere))
        found[helps] = found.get(helps, 0) + 1
    more = requirement.approvals - len(agreed) - len(empty)
    return [*(Missing(count, of) for of, count in found.items()), *([Missing(more)] if more > 0 else [])]


def _seat(person: int, fits: Sequence[set[int]], seated: dict[int, int], tried: set[int]) -> bool:
    """Give a person a place, moving others if need be (Kuhn)."""
    for place in sorted(fits[person] - tried):
        tried.add(place)
        if place not in seated or _seat(seated[place], fits, seated, tried):
            seated[place] = person
            return True
    return False


def _reach(place: int, fits: Sequence[set[int]], seated: Mapping[int, int]) -> set[int]:
    """The places of which one would have to be filled for this one to be."""
    found, new = {place}, [place]
    while new:
        here = new.pop()
        for other, person in seated.items():
            if other not in found and here in fits[person]:
                found.add(other)
                new.append(other)
    return found


def _open(
    request: Request,
    cast: Sequence[Vote],
    marks: LinkKeys,
    known: Mapping[PersonId, Person],
    lenders: Mapping[PersonId, Sequence[Person]],
) -> Tally:
    void = {item.id: why for item in cast if (why := _void(request, item, marks))}
    stand = [item for item in cast if item.id not in void and item.verdict in _AGREES and item.person_id is not None]
    stand = list({item.person_id: item for item in stand}.values())
    people = [known[item.person_id] for item in stand if item.person_id is not None]
    standing = stand_ins.weigh(request, people, stand, lenders)
    counted: dict[VoteId, Standing] = {}
    for item in stand:
        assert item.person_id is not None
        who = standing[item.person_id]
        if why := _left_out(request, who, item):
            void[item.id] = why
        else:
            counted[item.id] = who
    audience = quorum.audience(request.requirement, request.age)
    return Tally(
        agreed=list(counted),
        void=void,
        missing=missing(request.requirement, [who.groups for who in counted.values()], request.age)
        if request.kind in (Kind.APPROVAL, Kind.OUTCOME)
        else [Missing(1)],
        may_decide=sorted(audience),
        called=[
            Called(rung.groups, request.created_at.astimezone(UTC) + timedelta(seconds=rung.after))
            for rung in request.requirement.escalation
            if request.age.total_seconds() >= rung.after
        ],
        instead_of={vote: [one.email for one in who.instead_of] for vote, who in counted.items() if who.instead_of},
    )


def _settled(
    request: Request, cast: Sequence[Vote], marks: LinkKeys, known: Mapping[PersonId, Person], decision: Decision | None
) -> Tally:
    said = {} if decision is None else {voter["vote"]: voter for voter in late.voters_of(decision)}
    void = {item.id: why for item in cast if (why := _void(request, item, marks))}
    counted = [item.id for item in cast if ids.show("vot", item.id) in said]
    away: dict[VoteId, Sequence[str]] = {}
    for vote in counted:
        absent = [PersonId(ids.read("per", one)) for one in said[ids.show("vot", vote)]["instead_of"]]
        if absent:
            away[vote] = [known[one].email for one in absent if one in known]
    return Tally(agreed=counted, void={vote: why for vote, why in void.items() if vote not in counted}, instead_of=away)


def _void(request: Request, item: Vote, marks: LinkKeys) -> str:
    if not decide.is_genuine(item, marks):
        return "does not bear the gateway’s mark: it was not cast here, was changed since, or its key has been revoked"
    if item.revision != request.revision:
        return f"is on revision {item.revision}, which was edited since"
    return "was taken back" if decide.is_withdrawn(item, marks) else ""


def _left_out(request: Request, who: Standing, item: Vote) -> str:
    if who.person.disabled:
        return "is of somebody whose account has been disabled since"
    if request.tier is Tier.HIGH and request.author_id == who.person.id:
        return "is its editor’s, who does not count at tier high"
    if voters.hindrance(request, request.requirement, who, item.channel) is not None:
        return "is of somebody who may not vote on this any more"
    return ""


def _words(item: Missing, *, more: bool) -> str:
    number = _NUMBERS[item.count] if item.count < len(_NUMBERS) else str(item.count)
    if item.of:
        return f"{number} of {' or '.join(item.of)}"
    return f"{number}{' more' if more else ''} {'person' if item.count == 1 else 'people'}"
