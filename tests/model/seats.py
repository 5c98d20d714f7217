"""Who may vote, and when those who agreed are enough, tried out by brute force: the promises, not the code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

WAYS = {"low": {"session", "token", "link"}, "medium": {"session", "token"}, "high": {"session"}}


@dataclass
class Human:
    """A person as they are at this moment."""

    roles: frozenset[str]
    groups: frozenset[str]
    disabled: bool = False

    @property
    def reviews(self) -> bool:
        return "reviewer" in self.roles and not self.disabled

    def own(self) -> frozenset[str]:
        """What a person votes for by themselves."""
        found = self.groups | {"reviewers"} if self.reviews else frozenset[str]()
        return found | {"admins"} if "admin" in self.roles and not self.disabled else found


@dataclass
class Cast:
    """A vote as it was cast."""

    by: int
    revision: int
    channel: str
    genuine: bool = True
    taken_back: bool = False
    """By its voter, here: a row that somebody else wrote is none of this."""


@dataclass
class Asked:
    """A request and everything around it."""

    tier: str
    approvals: int
    groups: Mapping[str, int]
    ladder: Sequence[tuple[bool, frozenset[str]]]
    """Of each rung whether its time has come, and whom it calls."""
    requester: int
    people: list[Human]
    revision: int = 1
    author: int | None = None
    cast: list[Cast] = field(default_factory=list[Cast])
    away: dict[int, int] = field(default_factory=dict[int, int])
    """Who is away → who stands in."""

    @property
    def called(self) -> frozenset[str]:
        return frozenset(group for reached, groups in self.ladder if reached for group in groups)

    @property
    def audience(self) -> frozenset[str]:
        return frozenset(self.groups or {"reviewers"}) | self.called

    def standing_votes(self) -> list[Cast]:
        return [one for one in self.cast if one.genuine and not one.taken_back and one.revision == self.revision]

    def groups_of(self, who: int, voted: Collection[int]) -> frozenset[str]:
        """What a person votes for here: their own, and what is lent to them."""
        human = self.people[who]
        found = set(human.own())
        for absent, stand_in in self.away.items():
            lends = (
                stand_in == who
                and human.reviews
                and self.people[absent].reviews
                and absent not in voted
                and self.requester not in (absent, who)
                and not (self.tier == "high" and self.author == absent)
            )
            if lends:
                found |= self.people[absent].groups
        return frozenset(found)

    def may_vote(self, who: int, channel: str) -> bool:
        voted = {one.by for one in self.cast if one.revision == self.revision and not one.taken_back}
        return self._counts(who, channel, voted)

    def _counts(self, who: int, channel: str, voted: Collection[int]) -> bool:
        allowed = who != self.requester and channel in WAYS[self.tier]
        return allowed and not self.groups_of(who, voted).isdisjoint(self.audience)

    def counted(self) -> list[int]:
        """Whose votes count now, each person once."""
        voted = {one.by for one in self.standing_votes()}
        return sorted({
            one.by
            for one in self.standing_votes()
            if self._counts(one.by, one.channel, voted) and not (self.tier == "high" and one.by == self.author)
        })  # fmt: skip

    def seated(self) -> bool:
        """Whether those who count can be put on the places that are asked for, each on one."""
        people = self.counted()
        if len(people) < self.approvals:
            return False
        stand_for = {who: self.groups_of(who, people) for who in people}
        places = [group for group, count in self.groups.items() for _ in range(count)]
        return any(
            all(
                group in stand_for[who] or stand_for[who] & self.called
                for group, who in zip(places, order, strict=False)
            )
            for order in permutations(people)
            if len(order) >= len(places)
        )
