"""Stand-ins: who votes for the groups of somebody who is away (docs/decisions/0024).

What is lent is the absent person's groups, to one person at a time, for as long as the absence lasts by the database's
clock: it is asked again at every counting. Roles are not lent, nor what was borrowed. A stand-in fills one place like
anybody else. Nothing is lent on a request whose requester is one of the two, by whoever has voted on it, or, at tier
high, by whoever edited it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from banksman import quorum
from banksman.ids import PersonId
from banksman.ledger import Connection, absences
from banksman.records import Person, Request, Vote
from banksman.states import Tier


@dataclass(frozen=True, slots=True)
class Standing:
    """A person and the groups that they vote for: their own, and those of people for whom they stand in."""

    person: Person
    groups: frozenset[str]
    instead_of: Sequence[Person] = ()

    def role(self, request: Request) -> str:
        """The role by which a vote of this person counts: it must be theirs still when the call starts."""
        seated = self.groups & quorum.audience(request.requirement, request.age)
        return "admin" if seated == frozenset({quorum.ADMINS}) else "reviewer"


def standing(
    conn: Connection, request: Request, people: Iterable[Person], cast: Sequence[Vote]
) -> dict[PersonId, Standing]:
    """For what each of these people stands on this request just now, `cast` being the votes on it that stand."""
    known = list(people)
    wanting = [person.id for person in known if _wanted(request, person)]
    return weigh(request, known, cast, absences.lenders(conn, wanting) if wanting else {})


def weigh(
    request: Request, people: Iterable[Person], cast: Sequence[Vote], lenders: Mapping[PersonId, Sequence[Person]]
) -> dict[PersonId, Standing]:
    """The same, by what is known of who stands in for whom at this moment."""
    voted = {item.person_id for item in cast if item.revision == request.revision}
    found: dict[PersonId, Standing] = {}
    for person in people:
        wanted = _wanted(request, person)
        lending = [
            absent
            for absent in lenders.get(person.id, ())
            if _own(request, absent) & wanted and absent.id not in voted and _may_lend(request, absent)
        ]
        lent = (_own(request, absent) & wanted for absent in lending)
        found[person.id] = Standing(person, _own(request, person).union(*lent), lending)
    return found


def _own(request: Request, person: Person) -> frozenset[str]:
    """The groups that a person votes for here: without those that they were given after it was asked, for a while."""
    now = request.created_at + request.age
    fresh = {group for group, (at, until) in person.fresh.items() if request.created_at < at and now < until}
    return quorum.standing(person) - fresh


def _wanted(request: Request, person: Person) -> frozenset[str]:
    """The groups that a person would have to borrow to vote for them; none for who is no reviewer, or asked for it."""
    own = _own(request, person)
    if quorum.REVIEWERS not in own or request.asked_by(person):
        return frozenset()
    return quorum.audience(request.requirement, request.age) - own - {quorum.ADMINS}


def _may_lend(request: Request, absent: Person) -> bool:
    edited = request.tier is Tier.HIGH and request.author_id == absent.id
    return not edited and not request.asked_by(absent)
