"""Standing grants: what they let through, how often and how long, and what is asked after all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from banksman import ids, ledger, rule_file
from banksman.errors import Conflict, InvalidInput, NotAllowed
from banksman.grants import verified
from banksman.ids import GrantId, RunId
from banksman.ledger import audit, batches, executions, grants, requests, restore, staff, views
from banksman.policy import Policy
from banksman.records import NewRun, Request
from banksman.signing import Signer, Verifier
from banksman.states import RunStatus
from banksman_gateway.grants import GrantShape, Wish, give
from banksman_worker import granting
from banksman_worker.agents import Listed
from banksman_worker.granting import Grantbook
from banksman_worker.rulebook import Rulebook
from tests.conftest import Database
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_drift import a_payer
from tests.worker.test_segment import agent_calling

LOW = '[[rule]]\nname = "pay"\ntool = "pay"\nthen = "ask"\ntier = "low"\n'


@dataclass
class Desk:
    """A site with grants, whose one agent pays."""

    site: Site
    book: Grantbook
    signer: Signer
    verifier: Verifier
    effects: list[Any]

    def approved(self, run_id: RunId | None = None) -> Request:
        """A request that Ana approved and whose run has gone on."""
        run_id = run_id or self.site.submit("payer")
        assert self.site.advance(run_id).status is RunStatus.WAITING
        [request] = self.site.open(run_id)
        self.site.vote(request, "approve")
        assert self.site.advance(run_id).status is RunStatus.FINISHED
        self.effects.clear()
        return request

    def give(self, request: Request, *, by: int = 0, most: int = 5, **wish: Any) -> GrantShape:
        with ledger.transaction(self.site.gateway) as conn:
            asked = Wish(request_id=ids.show("req", request.id), most=most, **wish)
            made = give(conn, self.signer, self.verifier, self.site.reviewers[by], asked)
        self.refresh()
        return made

    def refresh(self) -> None:
        with ledger.transaction(self.site.worker.pool) as conn:
            self.book.refresh(conn)

    def again(self, run_id: RunId | None = None) -> str | None:
        """None when the call ran without asking; else why it is asked."""
        run_id = run_id or self.site.submit("payer")
        before = len(self.effects)
        if self.site.advance(run_id).status is RunStatus.FINISHED:
            assert len(self.effects) == before + 1
            return None
        assert len(self.effects) == before
        [request] = self.site.open(run_id)
        return request.requirement.because + request.context.decode()

    def refusals(self) -> list[str]:
        self.refresh()
        with ledger.transaction(self.site.gateway) as conn:
            events = audit.since(conn, (0, 0))
        return [str(event.body["why"]) for event in events if event.action == "grant.refused"]

    def sql(self, owner: str, text: str) -> None:
        """What a superuser could do who is past every trigger."""
        with psycopg.connect(owner) as conn:
            conn.execute("ALTER TABLE grants DISABLE TRIGGER USER")
            conn.execute(text.encode())
        self.refresh()


DeskMaker = Callable[..., Desk]


@pytest.fixture
def desk(site: SiteMaker, signer: Signer, verifier: Verifier) -> DeskMaker:
    def make(rules: str = LOW, agent: Any = None, *, effects: list[Any] | None = None) -> Desk:
        found: list[Any] = [] if effects is None else effects
        under = Rulebook(verifier, rule_file.read(rules))
        book = Grantbook(under, verifier)
        made = Desk(site({"payer": agent or a_payer(found)}, policy=Policy(rules=book)), book, signer, verifier, found)
        with ledger.transaction(made.site.worker.pool) as conn:
            under.refresh(conn)
        made.refresh()
        return made

    return make


def test_the_same_call_is_made_again_without_asking_and_the_journal_names_the_grant(desk: DeskMaker) -> None:
    here = desk()
    made = here.give(here.approved())

    run_id = here.site.submit("payer")
    assert here.again(run_id) is None

    with ledger.transaction(here.site.gateway) as conn:
        [started] = [line for line in views.timeline(conn, run_id) if line.what == "execution.started"]
        row = conn.execute("SELECT grant_id FROM executions WHERE run_id = %s", (run_id,)).fetchone()
        stored = grants.get(conn, GrantId(ids.read("gra", made.id)))
    assert (started.detail["grant"], started.detail["owner"]) == (made.id, "ana@example.org")
    assert row == (stored.id,)
    assert stored.used == 1


def test_a_grant_that_a_restore_gave_back_counts_no_more(desk: DeskMaker, database: Database) -> None:
    here = desk()
    made = here.give(here.approved())
    with ledger.transaction(here.site.gateway) as conn:
        assert grants.revoke(conn, GrantId(ids.read("gra", made.id)), here.site.reviewers[0].id)
    here.sql(database.owner, "UPDATE grants SET revoked_at = NULL, revoked_by = NULL")
    with ledger.once(database.owner, name="test") as conn:
        found = restore.look(conn)
        ended = [restore.end_grants(conn), restore.end_grants(conn)]
    with ledger.once(database.owner, name="test") as conn:
        told = [event.body for event in audit.since(conn, (0, 0)) if event.actor == restore.ACTOR]
    here.refresh()

    why = here.again()

    assert (found.grants, ended, told) == (1, [1, 0], [{"grant": made.id}])
    assert why is not None
    assert f"standing grant {made.id} does not cover it: it was revoked" in why


def test_without_a_grant_and_for_other_arguments_it_is_asked(desk: DeskMaker) -> None:
    here = desk()
    request = here.approved()
    assert here.again() is not None

    here.give(request)
    other = desk(agent=agent_with({"amount": 6}, here.effects), effects=here.effects)

    assert "standing grant" not in str(other.again())
    assert here.again() is None


def agent_with(arguments: dict[str, Any], effects: list[Any]) -> Any:
    agent = agent_calling(("pay", arguments))

    @agent.tool_plain(requires_approval=True)
    def pay(amount: int, currency: str = "EUR") -> str:
        effects.append((amount, currency))
        return "paid"

    del pay
    return agent


def test_only_the_arguments_that_its_owner_left_free_may_differ(desk: DeskMaker) -> None:
    here = desk()
    here.give(here.approved(), free=["amount"])

    more = desk(agent=agent_with({"amount": 6}, here.effects), effects=here.effects)
    dollars = desk(agent=agent_with({"amount": 5, "currency": "USD"}, here.effects), effects=here.effects)

    assert more.again() is None
    assert dollars.again() is not None


def test_a_grant_is_used_no_more_often_than_it_says(desk: DeskMaker) -> None:
    here = desk()
    made = here.give(here.approved(), most=2)

    assert [here.again(), here.again()] == [None, None]
    here.refresh()

    why = here.again()
    assert why is not None
    assert f"standing grant {made.id} does not cover it: it is used up (2 of 2)" in why
    assert here.refusals() == ["it is used up (2 of 2)"]


def test_twenty_starts_at_once_never_exceed_the_cap(desk: DeskMaker) -> None:
    here = desk()
    made = here.give(here.approved(), most=7)
    waiting = [here.site.submit("payer") for _ in range(20)]

    with ThreadPoolExecutor(20) as pool:
        runs = list(pool.map(here.site.advance, waiting))

    assert sorted(run.status.value for run in runs) == ["finished"] * 7 + ["waiting"] * 13
    assert len(here.effects) == 7
    with ledger.transaction(here.site.gateway) as conn:
        assert grants.get(conn, GrantId(ids.read("gra", made.id))).used == 7
        started = [len(executions.of_run(conn, run_id)) for run_id in waiting]
        asked = [requests.of_run(conn, run_id) for run_id in waiting]
    assert sum(started) == 7
    assert sum(map(len, asked)) == 13
    assert "used up, ran out or was revoked" in next(found[0] for found in asked if found).context.decode()


@pytest.mark.parametrize("at_once", [False, True], ids=["known to the worker", "a moment before the start"])
def test_a_revoked_grant_counts_no_more(desk: DeskMaker, at_once: bool) -> None:
    here = desk()
    made = here.give(here.approved())
    with ledger.transaction(here.site.gateway) as conn:
        assert grants.revoke(conn, GrantId(ids.read("gra", made.id)), here.site.reviewers[1].id)
        assert not grants.revoke(conn, GrantId(ids.read("gra", made.id)), here.site.reviewers[1].id)
    if not at_once:
        here.refresh()

    assert "revoked" in str(here.again())


def test_a_grant_is_over_at_its_time(desk: DeskMaker) -> None:
    here = desk()
    here.give(here.approved(), lasts="1s")
    with ledger.transaction(here.site.gateway) as conn:
        conn.execute("SELECT pg_sleep(1.1)")

    assert "ran out" in str(here.again())
    here.refresh()
    assert "its time is over" in str(here.again())


@pytest.mark.parametrize(
    "how",
    [
        "UPDATE people SET disabled_at = now() WHERE email LIKE 'ana%'",
        "UPDATE people SET roles = '{auditor}' WHERE email LIKE 'ana%'",
        "UPDATE people SET roles = '{admin}' WHERE email LIKE 'ana%'",
    ],
    ids=["disabled", "no reviewer", "only an administrator"],
)
def test_a_grant_is_void_when_its_owner_may_not_decide_any_more(desk: DeskMaker, database: Database, how: str) -> None:
    here = desk()
    here.give(here.approved())
    here.sql(database.owner, how)

    assert "may no longer decide" in str(here.again())


def test_a_grant_of_a_group_is_void_when_its_owner_has_left_it(desk: DeskMaker) -> None:
    here = desk(LOW + "groups = {finance = 1}\n")
    ana = here.site.reviewers[0]
    with ledger.transaction(here.site.gateway) as conn:
        staff.upsert(conn, ana.email, name="Ana", groups=("finance",))
    here.site.reviewers = (replace(ana, groups=frozenset({"finance"})), here.site.reviewers[1])
    here.give(here.approved())
    assert here.again() is None

    with ledger.transaction(here.site.gateway) as conn:
        staff.upsert(conn, ana.email, name="Ana")

    assert "may no longer decide" in str(here.again())


FORGERIES = {
    "another signature": "UPDATE grants SET signature = decode(repeat('00', 64), 'hex')",
    "a larger cap": "UPDATE grants SET statement = convert_to(replace(convert_from(substr(statement, 2), 'utf-8'),"
    " '\"most\":5', '\"most\":9'), 'utf-8'); UPDATE grants SET statement = '\\x00'::bytea || statement",
    "another id": "UPDATE grants SET id = gen_random_uuid()",
    "no seal": "UPDATE grants SET statement = '\\xff'",
    "a key that nobody knows": "UPDATE grants SET kid = 'k9'",
}


@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("how", list(FORGERIES))
def test_a_forged_or_altered_grant_is_asked_about_and_written_down(
    desk: DeskMaker, database: Database, how: str
) -> None:
    here = desk()
    here.give(here.approved())
    here.sql(database.owner, FORGERIES[how])

    assert "it is not genuine" in str(here.again())
    assert here.effects == []
    assert here.refusals() == ["it is not genuine"]


def test_what_is_written_beside_the_statement_extends_nothing(desk: DeskMaker, database: Database) -> None:
    here = desk()
    here.give(here.approved(), most=1, lasts="1h")
    here.sql(database.owner, "UPDATE grants SET most = 9, expires_at = now() + interval '9 years'")

    assert here.again() is None
    assert here.again() is not None


def test_a_decision_or_another_grants_statement_is_no_grant(desk: DeskMaker, database: Database) -> None:
    here = desk()
    request = here.approved()
    here.give(request)
    here.sql(
        database.owner,
        "UPDATE grants SET (statement, signature, kid) = (SELECT statement, signature, kid FROM decisions LIMIT 1)",
    )

    assert "it is not genuine" in str(here.again())


def test_a_grant_is_bound_to_the_authors_version_and_the_tools_schema(desk: DeskMaker) -> None:
    here = desk()
    here.give(here.approved())

    newer = desk(agent=Listed(a_payer(here.effects), version="99"), effects=here.effects)
    wider = desk(agent=a_payer(here.effects, express=False), effects=here.effects)

    assert newer.again() is not None
    assert wider.again() is not None


def test_a_grant_is_good_for_the_same_requester_alone(desk: DeskMaker) -> None:
    here = desk()
    here.give(here.approved())
    ben = here.site.submit("payer", requester=here.site.reviewers[1])

    assert here.again(ben) is not None


def test_a_grant_from_a_batch_is_good_for_that_batch_alone(desk: DeskMaker) -> None:
    here = desk()
    first, second = (a_batch(here, 2) for _ in range(2))
    here.give(here.approved(first[0]))

    assert here.again(first[1]) is None
    assert here.again(second[0]) is not None
    assert here.again() is not None


def a_batch(here: Desk, size: int) -> Sequence[RunId]:
    batch_id = ids.BatchId(ids.new())
    made = [NewRun(RunId(ids.new()), "payer", "Do it.", "someone@example.org") for _ in range(size)]
    with ledger.transaction(here.site.gateway) as conn:
        batches.create(conn, batch_id, name=None, requester="someone@example.org", requester_id=None)
        batches.load(conn, batch_id, made, actor="test")
    return [new.id for new in made]


def test_a_grant_covers_no_more_than_todays_policy_asks_at_tier_low(desk: DeskMaker) -> None:
    here = desk()
    here.give(here.approved())
    medium = desk(LOW.replace("low", "medium"), effects=here.effects)
    two = desk(LOW + "approvals = 2\n", effects=here.effects)

    assert "standing grant" not in str(medium.again())
    assert "today's policy asks for more" in str(two.again())


def test_a_grant_lets_nothing_through_that_a_rule_denies(desk: DeskMaker) -> None:
    here = desk()
    here.give(here.approved())
    denied = desk(LOW.replace('"ask"\ntier = "low"', '"deny"'), effects=here.effects)
    run_id = denied.site.submit("payer")

    assert denied.site.advance(run_id).status is RunStatus.FINISHED
    assert here.effects == []


def test_who_asked_for_the_run_cannot_grant_it(desk: DeskMaker) -> None:
    here = desk()
    run_id = here.site.submit("payer", requester=here.site.reviewers[1])
    request = here.approved(run_id)

    with pytest.raises(NotAllowed, match="You asked for this run"):
        here.give(request, by=1)
    here.give(request)


def test_only_an_approved_call_at_tier_low_can_be_granted(desk: DeskMaker) -> None:
    here = desk()
    run_id = here.site.submit("payer")
    here.site.advance(run_id)
    [open_] = here.site.open(run_id)
    with pytest.raises(Conflict, match="follows an approval"):
        here.give(open_)
    here.site.vote(open_, "deny")
    with pytest.raises(Conflict, match="is denied"):
        here.give(open_)

    medium = desk(LOW.replace("low", "medium"), effects=here.effects)
    with pytest.raises(NotAllowed, match="tier low only"):
        medium.give(medium.approved())


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"free": ["sum"]}, "no argument 'sum'"),
        ({"lasts": "8d"}, "at most 7 days"),
        ({"lasts": "x"}, "is not a duration"),
    ],
)
def test_a_wish_that_goes_too_far_is_refused(desk: DeskMaker, wish: dict[str, Any], words: str) -> None:
    here = desk()
    request = here.approved()

    with pytest.raises(InvalidInput, match=words):
        here.give(request, **wish)


def test_a_use_is_given_back_when_the_call_does_not_start(desk: DeskMaker) -> None:
    here = desk()
    made = here.give(here.approved())
    stored = GrantId(ids.read("gra", made.id))
    with ledger.transaction(here.site.gateway) as conn:
        found = grants.get(conn, stored)

    with ledger.transaction(here.site.worker.pool) as conn:
        assert granting.spend(conn, verified(found, here.verifier)) is None
        conn.rollback()

    with ledger.transaction(here.site.gateway) as conn:
        assert grants.get(conn, stored).used == 0


def test_a_use_is_not_counted_where_somebody_else_has_started_the_call(
    desk: DeskMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = desk()
    made = here.give(here.approved())

    def lost(*args: object, **named: object) -> bool:
        del args, named
        return False

    monkeypatch.setattr(executions, "start", lost)

    here.again()

    with ledger.transaction(here.site.gateway) as conn:
        assert grants.get(conn, GrantId(ids.read("gra", made.id))).used == 0
