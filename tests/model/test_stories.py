"""The model's moves in orders that matter, told by hand: each move still says what must come of it, and is checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from banksman.states import Kind, Tier
from tests.model.machine import Asked, Machine
from tests.model.promises import World

ANA, BEN, CAM, DAN, REQUESTER = range(5)
PAY: Asked = (Kind.APPROVAL, Tier.MEDIUM, 1)


@pytest.fixture
def tale(world: World) -> Iterator[Machine]:
    """A machine whose promises are looked at once more at the end."""
    machine = Machine(world)
    yield machine
    machine.all_promises_hold()
    machine.teardown()


def come_to(tale: Machine, so_far: str) -> None:
    tale.begin(so_far)
    tale.all_promises_hold()


def says(tale: Machine, who: int, n: int = 0, *, yes: bool = True, edits: bool = False, **more: Any) -> None:
    said: dict[str, Any] = {"channel": "session", "stale": False, "stops": False, **more}
    tale.vote(n, who, yes, edits=edits, wild=True, **said)


def taken_over(tale: Machine) -> None:
    """The worker's lease passes, and another one takes the run."""
    tale.time_is_up_for_a_run(n=0)
    tale.claim(n=0, old=False, wild=False)


@pytest.mark.parametrize("so_far", ["nothing", "parked", "agreed", "started", "in doubt", "said"])
def test_every_beginning_is_as_expected(tale: Machine, so_far: str) -> None:
    come_to(tale, so_far)


def test_a_finished_call_is_replayed_to_whoever_takes_over(tale: Machine) -> None:
    come_to(tale, "started")
    tale.finish_execution(n=0, thief=False)
    taken_over(tale)
    tale.start(n=-1, which=0, wild=False)

    assert tale.world.reached["start: _Replay"] == 1


def test_each_word_of_a_person_reruns_a_call_once(tale: Machine) -> None:
    come_to(tale, "said")
    tale.claim(n=0, old=False, wild=False)
    tale.start(n=-1, which=1, wild=False)
    taken_over(tale)
    tale.start(n=-1, which=1, wild=False)

    assert tale.world.reached["run again"] == 1
    assert tale.world.reached["start: doubt"] == 2


def test_what_happened_is_told_and_not_run(tale: Machine) -> None:
    come_to(tale, "in doubt")
    for n, request in enumerate(tale.requests.values()):
        if request.state == "open":
            says(tale, ANA, n, stops=True)
    tale.claim(n=0, old=False, wild=False)
    tale.start(n=-1, which=1, wild=False)

    assert tale.world.reached["start: _Told"] == 1


def test_who_lost_the_run_starts_nothing_and_commits_nothing(tale: Machine) -> None:
    come_to(tale, "agreed")
    tale.claim(n=0, old=False, wild=False)
    taken_over(tale)
    for attempt in (0, 1):
        tale.start(n=attempt, which=0, wild=True)
    for end in ("finish", "fail", "stop", "postpone", "release"):
        tale.end(n=0, end=end)
        tale.all_promises_hold()

    assert tale.world.reached["start: lost"] >= 1


def test_past_its_lease_a_heartbeat_revives_nothing(tale: Machine) -> None:
    come_to(tale, "started")
    tale.time_is_up_for_a_run(n=0)
    tale.beat(n=-1)


def test_the_dispatcher_leaves_alone_what_is_not_due(tale: Machine) -> None:
    come_to(tale, "started")
    tale.dispatch()
    tale.time_is_up_for_a_run(n=0)
    tale.dispatch()


def test_a_run_that_is_to_stop_is_not_claimed_and_ends_with_its_lease(tale: Machine) -> None:
    come_to(tale, "started")
    tale.cancel(n=0)
    tale.end(n=-1, end="release")
    tale.claim(n=0, old=False, wild=False)
    tale.dispatch()

    assert tale.world.reached["not claimed"] == 1
    assert next(iter(tale.runs.values())).status == "cancelled"


def test_a_message_about_an_earlier_segment_claims_nothing(tale: Machine) -> None:
    come_to(tale, "agreed")
    tale.claim(n=0, old=True, wild=False)

    assert tale.world.reached["not claimed"] == 1


def test_a_disabled_person_does_not_vote_and_did_not(tale: Machine) -> None:
    tale.submit(who=REQUESTER)
    tale.carry_on(wanted=[(Kind.APPROVAL, Tier.MEDIUM, 2)], starts=0, ends=False, parks=True)
    says(tale, ANA)
    tale.disable(who=ANA)
    tale.disable(who=DAN)
    says(tale, DAN)
    says(tale, BEN)
    says(tale, ANA)
    [request] = tale.requests.values()
    assert request.state == "open"
    says(tale, CAM)

    assert request.state == "approved"


def test_who_edited_a_call_at_tier_high_does_not_count_for_it(tale: Machine) -> None:
    tale.submit(who=REQUESTER)
    tale.carry_on(wanted=[(Kind.APPROVAL, Tier.HIGH, 2)], starts=0, ends=False, parks=True)
    says(tale, ANA, edits=True)
    says(tale, BEN)
    [request] = tale.requests.values()
    assert (request.state, request.revision) == ("open", 2)
    says(tale, CAM)

    assert request.state == "approved"


def test_the_requester_is_refused_and_a_stale_page_is_too(tale: Machine) -> None:
    come_to(tale, "parked")
    says(tale, REQUESTER)
    says(tale, ANA, stale=True)

    assert tale.world.reached["refused"] == 2
