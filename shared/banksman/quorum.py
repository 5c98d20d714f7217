"""Quorum: who may vote on a request by its frozen requirement, and whether those who agreed are enough.

A requirement names groups and how many of each; without groups it is for every reviewer. Two groups need no list of
members, because roles make them: `reviewers` and `admins`. When a rung of the escalation ladder is reached, its groups
may vote too, and each of their members may stand in for any group that is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import combinations

from banksman.records import Person, Requirement

REVIEWERS, ADMINS = "reviewers", "admins"


def standing(person: Person) -> frozenset[str]:
    """The groups that a person votes for: none without the role for it, whatever lists they are on."""
    if person.disabled:
        return frozenset()
    own = person.groups | {REVIEWERS} if "reviewer" in person.roles else frozenset[str]()
    return own | {ADMINS} if "admin" in person.roles else own


def called(requirement: Requirement, age: timedelta) -> frozenset[str]:
    """The groups whom the ladder has called in by now; `age` is how long the request has been open."""
    return frozenset(
        group for rung in requirement.escalation if age.total_seconds() >= rung.after for group in rung.groups
    )


def audience(requirement: Requirement, age: timedelta) -> frozenset[str]:
    """The groups whose members may vote by now."""
    return frozenset(requirement.groups or {REVIEWERS}) | called(requirement, age)


def met(requirement: Requirement, agreed: Sequence[Collection[str]], age: timedelta) -> bool:
    """Whether these people, each given as the groups that they stand for, are enough.

    Each of them fills one place, also who is in two of the groups. By Hall's marriage theorem the places can be filled
    exactly if every choice of groups has as many members among these people as the groups of that choice ask for.
    """
    if len(agreed) < requirement.approvals:
        return False
    anywhere = called(requirement, age)
    return all(
        sum(not (anywhere | set(some)).isdisjoint(groups) for groups in agreed)
        >= sum(requirement.groups[group] for group in some)
        for size in range(1, len(requirement.groups) + 1)
        for some in combinations(requirement.groups, size)
    )
