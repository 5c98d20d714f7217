"""A call is approved exactly when distinct people who may say so seat what it requires, whatever happened before.

People vote by every way in, edit, take votes back, go away and stand in, are disabled, change roles and groups; the
ladder is climbed; somebody writes votes and withdrawals into the database. After each step the real `decide`, on the
real database, must say what brute force says (`seats`). `BANKSMAN_HYPOTHESIS=long` tries 1,500 stories.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from banksman import ids, ledger
from banksman.errors import BanksmanError
from banksman.ids import RequestId
from banksman.ledger import absences, decisions, requests, runs, staff, votes
from banksman.records import NewRun, Person, Rung
from banksman.states import RequestState, Tier, Verdict
from banksman_gateway import away, decide, withdraw
from banksman_gateway.voters import Channel
from tests.gateway.scenes import LEASE, asking, bound
from tests.model.promises import World
from tests.model.seats import Asked, Cast, Human

LONG = os.environ.get("BANKSMAN_HYPOTHESIS", "") == "long"
CROWD = 5
Roles = frozenset[str]
Groups = frozenset[str]
Step = tuple[str, int, int, Channel, Roles, Groups]
MOVES = {
    "vote": 12,
    "wild vote": 2,
    "edit": 1,
    "withdraw": 3,
    "away": 4,
    "back": 1,
    "disable": 1,
    "change": 1,
    "later": 1,
    "forge vote": 1,
    "forge withdrawal": 1,
}
"""What may happen, and how often of all that happens."""


@dataclass(frozen=True)
class Plot:
    """How a story begins and what happens in it."""

    tier: str
    approvals: int
    groups: dict[str, int]
    rung: str | None
    people: list[tuple[Roles, Groups]]
    steps: list[Step]


def plot(number: int) -> Plot:
    """The plot of this number. Drawn evenly: Hypothesis by itself likes small choices, and few people lend there."""
    draw = random.Random(number)

    def roles() -> Roles:
        return frozenset(draw.choice([{"reviewer"}] * 9 + [{"reviewer", "admin"}, {"admin"}, {"auditor"}]))

    def groups() -> Groups:
        return frozenset(draw.choice(["", "a", "a", "b", "b", "ab"]))

    def step(what: str) -> Step:
        way: Channel = draw.choice(["session", "session", "session", "token", "link"])
        return what, draw.randrange(CROWD), draw.randrange(CROWD), way, roles(), groups()

    wanted = draw.choice([{}, {"a": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 0}, {"a": 2}, {"a": 1, "b": 2}])
    before = [step(what) for what in draw.choices(["away", "later"], [3, 1], k=draw.randrange(4))]
    return Plot(
        tier=draw.choice(["low", "medium", "medium", "high"]),
        approvals=draw.choice([1, 2, 2, 3]),
        groups=wanted,
        rung=draw.choice([None, "admins", "b", "reviewers"]),
        people=[(roles(), groups()) for _ in range(CROWD)],
        steps=before + [step(what) for what in draw.choices(list(MOVES), list(MOVES.values()), k=20)],
    )


class Story:
    """One request, as it is and as it should be."""

    def __init__(self, world: World, told: Plot) -> None:
        self.world, self.plot = world, told
        self.crowd: list[Person] = []
        ladder = [(False, frozenset({told.rung} if told.rung else ()))]
        self.asked = Asked(told.tier, told.approvals, told.groups, ladder, 0, [])
        self.request_id = RequestId(ids.new())

    def begin(self) -> None:
        """People come, one of them submits a run, and it waits for the others."""
        new = asking(
            tier=Tier(self.plot.tier),
            approvals=self.plot.approvals,
            groups=self.plot.groups,
            escalation=(Rung(3600, (self.plot.rung,)),) if self.plot.rung else (),
        )
        self.request_id = new.id
        with ledger.transaction(self.world.parts.pool) as conn:
            for roles, groups in self.plot.people:
                email = f"{ids.new().hex}@example.org"
                self.crowd.append(staff.upsert(conn, email, name="Somebody", roles=roles, groups=groups))
                self.asked.people.append(Human(roles, groups))
            run_id = ids.RunId(ids.new())
            runs.create(conn, NewRun(run_id, "plain", "Do it.", self.crowd[0].email, self.crowd[0].id), hint=LEASE)
        with ledger.transaction(self.world.worker) as conn:
            claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
            assert claim is not None
            requests.open_request(conn, run_id, 0, bound(new, run_id, []))
            assert runs.park(conn, run_id, claim.fence, version="1", usage={})
        # Being a newcomer is another story.
        self.world.owner.execute("UPDATE people SET fresh = '{}'")

    def step(self, what: str, who: int, other: int, channel: Channel, roles: Roles, groups: Groups) -> str:
        """One step, made and expected; what came of it."""
        moves: dict[str, Callable[[], str]] = {
            "vote": lambda: self._vote(self._somebody(who), channel, edits=False),
            "wild vote": lambda: self._vote(who, channel, edits=False),
            "edit": lambda: self._vote(self._somebody(who), channel, edits=True),
            "withdraw": lambda: self._withdraw(who),
            "away": lambda: self._away(who, other),
            "back": lambda: self._back(who),
            "disable": lambda: self._disable(who),
            "change": lambda: self._change(who, roles, groups),
            "later": self._later,
            "forge vote": lambda: self._forge_vote(who),
            "forge withdrawal": lambda: self._forge_withdrawal(who),
        }
        return moves[what]()

    def _somebody(self, who: int) -> int:
        """The next one who may vote and has not, if there is one; first of all who may only in another's place."""
        voted = {one.by for one in self.asked.standing_votes()}
        crowd = [(who + step) % CROWD for step in range(CROWD)]
        crowd.sort(key=lambda one: not self.asked.people[one].own().isdisjoint(self.asked.audience))
        return next((one for one in crowd if one not in voted and self.asked.may_vote(one, "session")), who)

    def _vote(self, who: int, channel: Channel, *, edits: bool) -> str:
        asked = self.asked
        mine = [one for one in asked.cast if one.by == who and one.revision == asked.revision and not one.taken_back]
        expected = asked.may_vote(who, channel) and (edits or not mine)
        if expected:
            if edits:
                asked.revision, asked.author = asked.revision + 1, who
            asked.cast.append(Cast(who, asked.revision, channel))
        approved = expected and asked.seated()

        with ledger.transaction(self.world.parts.pool) as conn:
            shown = requests.get(conn, self.request_id)
        exact = {"path": "/a", "content": ids.new().hex} if edits else None
        ballot = decide.Ballot(Verdict.APPROVE, shown.digest, shown.revision, reason="So.", exact=exact)
        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                voter = decide.Voter(channel, self.crowd[who])
                state = decide.vote(conn, self.request_id, voter, ballot, self.world.parts.pen).request.state
        except BanksmanError:
            assert not expected
            return "refused"
        assert expected
        assert state is (RequestState.APPROVED if approved else RequestState.OPEN)
        return state.value

    def _withdraw(self, who: int) -> str:
        voted = [one.by for one in self.asked.standing_votes()]
        who = voted[who % len(voted)] if voted else who
        mine = [one for one in self.asked.standing_votes() if one.by == who]
        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                withdraw.withdraw(conn, self.request_id, self.crowd[who], self.world.parts.pen)
        except BanksmanError:
            assert not mine
            return "nothing to take back"
        assert len(mine) == 1
        mine[0].taken_back = True
        return "taken back"

    def _away(self, who: int, other: int) -> str:
        people = self.asked.people
        sense = who != other and people[who].reviews and people[other].reviews and who not in self.asked.away
        try:
            with ledger.transaction(self.world.parts.pool) as conn:
                person = self._now(conn, who)
                row = conn.execute("SELECT clock_timestamp() + interval '1 hour'").fetchone()
                assert row is not None
                away.declare(conn, person, self.crowd[other].email, from_at=None, until_at=row[0])
        except BanksmanError:
            assert not sense
            return "stays"
        assert sense
        self.asked.away[who] = other
        return "away"

    def _back(self, who: int) -> str:
        with ledger.transaction(self.world.parts.pool) as conn:
            for one in absences.coming(conn, self.crowd[who].id):
                if one.person.id == self.crowd[who].id:
                    away.end(conn, self.crowd[who], one.id)
        self.asked.away.pop(who, None)
        return "back"

    def _disable(self, who: int) -> str:
        with ledger.transaction(self.world.parts.pool) as conn:
            staff.disable(conn, self.crowd[who].id)
        self.asked.people[who].disabled = True
        return "disabled"

    def _change(self, who: int, roles: frozenset[str], groups: frozenset[str]) -> str:
        self.world.owner.execute(
            "UPDATE people SET roles = %s, groups = %s WHERE id = %s", (list(roles), list(groups), self.crowd[who].id)
        )
        human = self.asked.people[who]
        human.roles, human.groups = roles, groups
        return "changed"

    def _later(self) -> str:
        self.world.owner.execute(
            "UPDATE requests SET created_at = created_at - interval '2 hours' WHERE id = %s", (self.request_id,)
        )
        self.asked.ladder = [(True, groups) for _, groups in self.asked.ladder]
        return "later"

    def _forge_vote(self, who: int) -> str:
        """Somebody at the database says that this person approved, by a mark that was good for something else."""
        row = self.world.owner.execute(
            "SELECT max(mac) FROM votes WHERE request_id = %s", (self.request_id,)
        ).fetchone()
        assert row is not None
        written = self.world.owner.execute(
            """
            INSERT INTO votes (id, request_id, revision, digest, verdict, person_id, channel, mac)
            SELECT %s, id, revision, (SELECT digest FROM revisions WHERE request_id = id AND revisions.revision =
                                      requests.revision), 'approve', %s, 'session', %s
            FROM requests WHERE id = %s
            ON CONFLICT DO NOTHING
            """,
            (ids.new(), self.crowd[who].id, row[0] or "k1.x", self.request_id),
        ).rowcount
        if written:
            self.asked.cast.append(Cast(who, self.asked.revision, "session", genuine=False))
        return "forged a vote"

    def _forge_withdrawal(self, who: int) -> str:
        self.world.owner.execute(
            "INSERT INTO withdrawals (vote_id, mac) SELECT id, mac FROM votes WHERE request_id = %s AND person_id = %s"
            " ON CONFLICT DO NOTHING",
            (self.request_id, self.crowd[who].id),
        )
        return "forged a withdrawal"

    def _now(self, conn: ledger.Connection, who: int) -> Person:
        found = staff.by_email(conn, self.crowd[who].email)
        assert found is not None
        return found

    def lent(self) -> bool:
        """Whether the decision names somebody in whose place another voted."""
        with ledger.transaction(self.world.parts.pool) as conn:
            decision = decisions.get(conn, self.request_id)
        assert decision is not None
        return any(voter["instead_of"] for voter in self.world.verifier.verify(decision.signed)["voters"])

    def check_decision(self) -> None:
        """What was signed names exactly the people who count, each with a vote that stands."""
        with ledger.transaction(self.world.parts.pool) as conn:
            decision = decisions.get(conn, self.request_id)
            assert decision is not None
            cast = {ids.show("vot", one.id): one for one in votes.of_request(conn, self.request_id)}
        said = self.world.verifier.verify(decision.signed)
        by = [ids.read("per", voter["by"]) for voter in said["voters"]]
        assert sorted(by) == sorted(self.crowd[who].id for who in self.asked.counted())
        assert len(set(by)) == len(by) >= said["requirement"]["approvals"]
        assert self.crowd[0].id not in by
        for voter in said["voters"]:
            vote = cast[voter["vote"]]
            assert decide.is_genuine(vote, self.world.parts.link_keys)
            assert not decide.is_withdrawn(vote, self.world.parts.link_keys)
            assert vote.revision == self.asked.revision


@pytest.mark.parametrize("again", range(4 if LONG else 1))
def test_a_call_is_approved_exactly_when_distinct_people_seat_what_it_requires(world: World, again: int) -> None:
    reached: Counter[str] = Counter({"again": again})

    @settings(
        max_examples=500 if LONG else 100,
        derandomize=not LONG,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, 2**64 - 1).map(plot))
    def tell(told: Plot) -> None:
        here = Story(world, told)
        here.begin()
        for step in told.steps:
            came = here.step(*step)
            reached[came] += 1
            if came == "approved":
                here.check_decision()
                reached["approved for somebody who is away"] += here.lent()
                reached["approved after somebody was called in"] += here.asked.called != frozenset()
                break

    tell()

    # Stories that never reach what can go wrong would prove nothing.
    expected = {"approved", "open", "refused", "taken back", "away", "forged a vote", "forged a withdrawal"}
    expected |= {"approved for somebody who is away", "approved after somebody was called in"}
    assert +reached >= Counter(expected), reached
