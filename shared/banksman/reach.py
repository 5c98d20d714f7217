"""Reach: whether the people there are could ever meet a requirement, whoever of them asked for the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from banksman import quorum
from banksman.records import Person, Requirement
from banksman.states import Tier


def reachable(requirement: Requirement, people: Sequence[Person], *, besides: str | None = None) -> bool:
    """Whether these people could meet it from the start, without the one of this address; by default, any one."""
    if besides is None:
        # Only who could vote can be missed.
        could = [person for person in people if not _groups(requirement).isdisjoint(quorum.standing(person))]
        return bool(could) and all(reachable(requirement, could, besides=person.email) for person in could)
    agreed = [quorum.standing(person) for person in people if person.email.casefold() != besides.casefold()]
    counted = [groups for groups in agreed if not _groups(requirement).isdisjoint(groups)]
    return quorum.met(requirement, counted, timedelta())


def highest(base: Requirement, people: Sequence[Person], requester: str) -> Requirement:
    """The requirement raised to the highest tier that people other than the requester can reach.

    Its groups stay where they can be had; where not even the lowest tier can be reached, it is tier high that waits.
    """
    for groups in dict.fromkeys((tuple(base.groups.items()), ())):
        found = raised(replace(base, groups=dict(groups)), people, requester)
        if found is not None:
            return found
    return at_least(base, Tier.HIGH)


def raised(base: Requirement, people: Sequence[Person], requester: str) -> Requirement | None:
    """The requirement, of its own groups, raised as far as people other than the requester can reach; else None."""
    for tier in (Tier.HIGH, Tier.MEDIUM):
        found = at_least(base, tier)
        if found.tier is tier and reachable(found, people, besides=requester):
            return found
    return None


def at_least(base: Requirement, tier: Tier) -> Requirement:
    """The same requirement at this tier, or as it is where it asks for a higher one."""
    order = list(Tier)
    raised = max(base.tier, tier, key=order.index)
    return replace(base, tier=raised, approvals=max(base.approvals, 2 if raised is Tier.HIGH else 1))


def in_words(requirement: Requirement) -> str:
    """Who must agree, for a person to read: “tier high, 2 people: 1 of finance, 1 of security”."""
    people = "1 person" if requirement.approvals == 1 else f"{requirement.approvals} people"
    named = ", ".join(
        f"{count} of {group}" if count else f"perhaps of {group}" for group, count in requirement.groups.items()
    )
    return f"tier {requirement.tier.value}, {people}" + (f": {named}" if named else "")


def _groups(requirement: Requirement) -> frozenset[str]:
    return quorum.audience(requirement, timedelta())
