"""Quorum: who may vote by a requirement, and when those who agreed are enough."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman import ids, quorum
from banksman.ids import PersonId
from banksman.records import Person, Requirement, Rung

NOW, LATER = timedelta(), timedelta(hours=2)
BOTH = Requirement(approvals=2, groups={"engineering": 1, "security": 1})
LADDER = (Rung(3600, ("leads",)), Rung(7200, ("admins",)))


def test_one_of_each_group_is_two_people_who_fill_one_place_each() -> None:
    assert quorum.met(BOTH, [{"engineering"}, {"security"}], NOW)
    assert quorum.met(BOTH, [{"engineering", "security"}, {"security"}], NOW)

    assert not quorum.met(BOTH, [{"engineering"}, {"engineering"}], NOW)
    assert not quorum.met(BOTH, [{"engineering", "security"}], NOW)


def test_somebody_in_two_groups_does_not_fill_both_places_whatever_the_head_count() -> None:
    three = Requirement(approvals=3, groups={"a": 1, "b": 1, "c": 1})

    assert not quorum.met(three, [{"a", "b"}, {"c"}, {"c"}], NOW)
    assert quorum.met(three, [{"a", "b"}, {"b"}, {"c"}], NOW)


def test_a_group_without_a_number_may_vote_and_need_not() -> None:
    either = Requirement(groups={"engineering": 0, "security": 0})

    assert quorum.audience(either, NOW) == {"engineering", "security"}
    assert quorum.met(either, [{"security"}], NOW)


def test_without_groups_it_is_for_every_reviewer() -> None:
    assert quorum.audience(Requirement(), NOW) == {"reviewers"}


def test_who_is_called_in_by_the_ladder_stands_in_for_whoever_is_missing() -> None:
    late = Requirement(approvals=2, groups={"engineering": 1, "security": 1}, escalation=LADDER)

    assert quorum.audience(late, NOW) == {"engineering", "security"}
    assert quorum.audience(late, LATER) == {"engineering", "security", "leads", "admins"}
    assert not quorum.met(late, [{"engineering"}, {"leads"}], NOW)
    assert quorum.met(late, [{"engineering"}, {"leads"}], LATER)
    assert not quorum.met(late, [{"leads"}], LATER)


@pytest.mark.parametrize(
    ("roles", "groups", "expected"),
    [
        ({"reviewer"}, {"security"}, {"reviewers", "security"}),
        ({"auditor"}, {"security"}, set[str]()),
        ({"admin"}, {"security"}, {"admins"}),
        ({"admin", "reviewer"}, set[str](), {"admins", "reviewers"}),
    ],
)
def test_a_list_of_members_gives_no_standing_without_the_role(
    roles: set[str], groups: set[str], expected: set[str]
) -> None:
    assert quorum.standing(a_person(roles, groups)) == expected
    assert quorum.standing(a_person(roles, groups, disabled=True)) == frozenset()


GROUPS = st.sampled_from("abc")


@given(
    st.dictionaries(GROUPS, st.integers(0, 2), max_size=3),
    st.integers(1, 4),
    st.lists(st.frozensets(GROUPS, max_size=3), max_size=5),
)
def test_it_is_met_exactly_when_people_can_be_seated(
    groups: dict[str, int], approvals: int, agreed: list[frozenset[str]]
) -> None:
    seats = [group for group, count in groups.items() for _ in range(count)]
    seated = any(
        all(group in standing for group, standing in zip(seats, order, strict=False))
        for order in permutations(agreed)
        if len(order) >= len(seats)
    )

    wanted = Requirement(approvals=approvals, groups=groups)

    assert quorum.met(wanted, agreed, NOW) == (seated and len(agreed) >= approvals)


def a_person(roles: set[str], groups: set[str], *, disabled: bool = False) -> Person:
    return Person(PersonId(ids.new()), "ana@example.org", "Ana", frozenset(roles), frozenset(groups), disabled)
