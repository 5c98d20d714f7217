"""The policy in force at a worker: verified versions, what a new one changes, and what becomes of one not genuine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from banksman import ids, ledger, rule_file, standing_policy
from banksman.digest import Json
from banksman.errors import Unavailable
from banksman.ids import BatchId, RunId
from banksman.ledger import agents, audit, families, policies, runs
from banksman.policy import Policy
from banksman.records import Delegation, Person, Request
from banksman.signing import Purpose, Signed, Signer, Verifier
from banksman.states import RunStatus, Tier
from banksman_worker.rulebook import Rulebook
from tests.conftest import Database
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import a_site

CALL = ("pay", {"amount": 5})
LOW = '[[rule]]\nname = "pay"\ntool = "pay"\nthen = "ask"\ntier = "low"\n'
MEDIUM = LOW.replace("low", "medium")
HIGH = LOW.replace("low", "high")
ALLOW = '[[rule]]\nname = "pay"\ntool = "pay"\nthen = "allow"\n'
DENY = '[[rule]]\nname = "pay"\ntool = "pay"\nthen = "deny"\nbecause = "Nothing is paid today."\n'

Upload = Callable[..., int]


@pytest.fixture
def upload(gateway_pool: ledger.Pool, signer: Signer, reviewers: tuple[Person, Person]) -> Upload:
    """Appends a version as the gateway does; `changed` alters the statement before it is signed."""

    def append(
        text: str, by: Signer = signer, *, changed: Mapping[str, Json] | None = None, purpose: Purpose = "policy"
    ) -> int:
        with ledger.transaction(gateway_pool) as conn:
            number = policies.next_number(conn)
            author = ids.show("per", reviewers[0].id)
            said = {**standing_policy.statement(number, text, author=author, at=datetime.now(UTC)), **(changed or {})}
            policies.append(conn, number, by.sign(said, purpose), reviewers[0].id)
        return number

    return append


@pytest.fixture
def book(verifier: Verifier) -> Rulebook:
    return Rulebook(verifier)


def refresh(here: Site, book: Rulebook) -> None:
    with ledger.transaction(here.worker.pool) as conn:
        book.refresh(conn)


def the_site(site: SiteMaker, book: Rulebook, **settings: Any) -> Site:
    here = a_site(site, CALL, policy=Policy(rules=book, **settings))
    refresh(here, book)
    return here


def refusals(here: Site) -> list[Mapping[str, Json]]:
    with ledger.transaction(here.gateway) as conn:
        found = audit.since(conn, (0, 0))
    return [event.body for event in found if event.action == "policy.refused"]


def asked(here: Site) -> Request:
    _, [request] = here.waiting("payer")
    return request


def test_a_version_is_in_force_from_the_next_look_on_and_every_requirement_names_it(
    site: SiteMaker, book: Rulebook, upload: Upload
) -> None:
    here = the_site(site, book)
    assert asked(here).requirement.policy == "default"

    upload(HIGH)
    refresh(here, book)

    assert (asked(here).requirement.policy, asked(here).requirement.tier) == ("v1", Tier.HIGH)


def test_an_allowing_version_lets_a_flagged_call_run_and_a_denying_one_tells_the_model(
    site: SiteMaker, book: Rulebook, upload: Upload
) -> None:
    here = the_site(site, book)
    upload(ALLOW)
    refresh(here, book)
    run_id = here.submit("payer")
    assert here.advance(run_id).status is RunStatus.FINISHED
    assert here.effects == [("pay", 5, "EUR")]

    upload(DENY)
    refresh(here, book)
    run_id = here.submit("payer")

    assert here.advance(run_id).status is RunStatus.FINISHED
    assert here.effects == [("pay", 5, "EUR")]
    with ledger.transaction(here.gateway) as conn:
        [refused] = [event for event in audit.of_run(conn, run_id) if event.action == "execution.refused"]
    assert refused.body["why"] == "Nothing is paid today."


def test_a_file_counts_until_something_is_uploaded(site: SiteMaker, verifier: Verifier, upload: Upload) -> None:
    book = Rulebook(verifier, replace(rule_file.read(LOW), version="file 1"))
    here = the_site(site, book)
    assert asked(here).requirement.policy == "file 1"

    upload(HIGH)
    refresh(here, book)

    assert asked(here).requirement.policy == "v1"


def test_nothing_is_let_through_before_the_policy_was_read(site: SiteMaker, book: Rulebook, upload: Upload) -> None:
    upload(ALLOW)
    here = a_site(site, CALL, policy=Policy(rules=book))

    assert asked(here).requirement.policy == standing_policy.REFUSED


@pytest.mark.parametrize(
    ("then", "now", "again"),
    [
        (LOW, MEDIUM, "tier medium instead of low"),
        (MEDIUM, HIGH, "tier high instead of medium"),
        (MEDIUM, LOW, None),
        (MEDIUM, MEDIUM.replace('"pay"\ntool', '"pays"\ntool'), None),
        (MEDIUM, ALLOW, None),
        (MEDIUM, MEDIUM + 'reminders = ["1h"]\non_expiry = "stop"\n', None),
        (MEDIUM, MEDIUM + "approvals = 2\n", "2 approvals instead of 1"),
        (MEDIUM, MEDIUM + "groups = {finance = 1}\n", "one of finance"),
        (MEDIUM, MEDIUM + 'groups = ["finance"]\n', "somebody of finance"),
    ],
)
def test_a_new_version_voids_an_approval_only_where_it_is_stricter(
    site: SiteMaker, book: Rulebook, upload: Upload, then: str, now: str, again: str | None
) -> None:
    upload(then)
    here = the_site(site, book)
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")

    upload(now)
    refresh(here, book)
    run = here.advance(run_id)

    if again is None:
        assert run.status is RunStatus.FINISHED
        assert here.effects == [("pay", 5, "EUR")]
        return
    assert here.effects == []
    [new] = here.open(run_id)
    assert again in new.context.decode()
    assert (request.requirement.policy, new.requirement.policy) == ("v1", "v2")


def test_what_is_denied_by_now_is_not_done_though_it_was_approved(
    site: SiteMaker, book: Rulebook, upload: Upload
) -> None:
    here = the_site(site, book)
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    upload(DENY)
    refresh(here, book)

    assert here.advance(run_id).status is RunStatus.FINISHED
    assert here.effects == []


def test_a_parked_request_keeps_what_was_frozen_when_it_opened(site: SiteMaker, book: Rulebook, upload: Upload) -> None:
    upload(MEDIUM + 'expires_after = "2h"\n')
    here = the_site(site, book)
    run_id, [request] = here.waiting("payer")
    upload(MEDIUM + 'expires_after = "9h"\n')
    refresh(here, book)

    [still] = here.open(run_id)
    assert still == replace(request, age=still.age)
    here.vote(still, "approve")
    assert here.advance(run_id).status is RunStatus.FINISHED


STRANGER = Signer("k9", b"\x09" * 32)
IMPOSTOR = Signer("k1", b"\x09" * 32)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"by": STRANGER}, "which this worker does not know"),
        ({"by": IMPOSTOR}, "signature under the policy does not hold"),
        ({"purpose": "decision"}, "signature under the policy does not hold"),
        ({"purpose": "grant"}, "signature under the policy does not hold"),
        ({"changed": {"version": 7}}, "was signed as another one"),
        ({"changed": {"text": "[[rule]]\nname = 1"}}, "policy version 2, rule 1"),
        ({"changed": {"text": 'tier = "new"'}}, "`tier` is not known here"),
    ],
)
def test_a_version_that_is_not_genuine_asks_about_every_call_at_the_highest_tier(
    site: SiteMaker, book: Rulebook, upload: Upload, how: dict[str, Any], why: str
) -> None:
    upload(ALLOW)
    here = the_site(site, book, allow_tools=("pay",))
    upload(ALLOW, **how)

    refresh(here, book)
    refresh(here, book)

    requirement = asked(here).requirement
    assert (requirement.policy, requirement.rule) == (standing_policy.REFUSED, "policy-refused")
    assert (requirement.tier, requirement.approvals) == (Tier.HIGH, 2)
    assert why in requirement.because
    [refused] = refusals(here)
    assert refused["version"] == 2
    assert why in str(refused["why"])
    assert here.effects == []


@pytest.mark.usefixtures("unsealed")
def test_an_unsigned_or_altered_row_is_no_policy(
    site: SiteMaker, book: Rulebook, upload: Upload, database: Database, verifier: Verifier
) -> None:
    upload(MEDIUM)
    here = the_site(site, book)
    with psycopg.connect(database.owner) as conn:  # what a superuser could do who is past every trigger
        conn.execute("ALTER TABLE policies DISABLE TRIGGER USER")
        conn.execute(
            "UPDATE policies SET statement = convert_to(replace(convert_from(substr(statement, 2), 'utf-8'), "
            "'ask', 'allow'), 'utf-8')"
        )
        conn.execute("UPDATE policies SET statement = '\\x00'::bytea || statement")
    fresh = Rulebook(verifier)
    after = the_site(site, fresh)

    assert asked(after).requirement.rule == "policy-refused"
    assert "does not hold" in str(refusals(here)[0]["why"])

    with psycopg.connect(database.owner) as conn:
        conn.execute("UPDATE policies SET statement = '\\xff', signature = ''")
    unreadable = Rulebook(verifier)
    assert asked(the_site(site, unreadable)).requirement.rule == "policy-refused"


def test_a_version_that_disappears_does_not_bring_an_older_one_back(
    site: SiteMaker, book: Rulebook, upload: Upload, database: Database
) -> None:
    upload(ALLOW)
    upload(HIGH)
    here = the_site(site, book)
    for gone in (2, 1):
        with psycopg.connect(database.owner) as conn:
            conn.execute("ALTER TABLE policies DISABLE TRIGGER USER")
            conn.execute("DELETE FROM policies WHERE version = %s", (gone,))
        refresh(here, book)

        assert asked(here).requirement.rule == "policy-refused"
    assert "has gone" in str(refusals(here)[0]["why"])


def test_a_genuine_version_after_a_refused_one_is_in_force(site: SiteMaker, book: Rulebook, upload: Upload) -> None:
    upload(ALLOW, by=STRANGER)
    here = the_site(site, book)
    upload(MEDIUM)
    refresh(here, book)

    assert asked(here).requirement.policy == "v2"


def test_a_decision_is_no_policy_and_a_policy_no_decision(signer: Signer, verifier: Verifier) -> None:
    policy_, decision = signer.sign({"v": 1}, "policy"), signer.sign({"v": 1})

    assert verifier.verify(policy_, "policy") == verifier.verify(decision) == {"v": 1}
    crossed: list[tuple[Signed, Purpose]] = [(policy_, "decision"), (decision, "policy"), (policy_, "grant")]
    for signed, purpose in crossed:
        with pytest.raises(Exception, match="does not hold"):
            verifier.verify(Signed(signed.statement, signed.signature, signed.kid), purpose)


def test_a_rule_sees_the_runs_tags(site: SiteMaker, book: Rulebook, upload: Upload) -> None:
    upload('[[rule]]\nname = "eu"\ntool = "pay"\nwhen = \'"eu" in tags || batch != ""\'\nthen = "allow"\n' + HIGH)
    here = the_site(site, book)

    assert asked(here).requirement.tier is Tier.HIGH
    run_id = here.submit("payer", tags=("eu",))
    assert here.advance(run_id).status is RunStatus.FINISHED


def test_a_rule_sees_the_tags_and_the_batch_of_the_run_that_delegated(
    site: SiteMaker, book: Rulebook, upload: Upload, database: Database
) -> None:
    here = the_site(site, book)
    batch = BatchId(ids.new())
    when = f'"eu" in tags && batch == "{ids.show("bat", batch)}"'
    upload(f'[[rule]]\nname = "eu"\ntool = "pay"\nwhen = \'{when}\'\nthen = "allow"\n{HIGH}')
    refresh(here, book)
    root, child = here.submit("payer", tags=("eu",)), RunId(ids.new())
    with psycopg.connect(database.owner) as conn:
        conn.execute("INSERT INTO batches (id, requester) VALUES (%s, 'r@example.org')", (batch,))
        conn.execute("UPDATE runs SET batch_id = %s WHERE id = %s", (batch, root))
    with ledger.transaction(here.worker.pool) as conn:
        agents.announce(conn, {"payer": ("1", {})})
        claim = runs.claim(conn, root, 0, owner="w", lease=timedelta(minutes=1))
        assert claim is not None
        families.send_out(conn, root, 0, Delegation(child, "payer", "Pay.", 1, "c1"), hint=timedelta(minutes=1))
        runs.park(conn, root, claim.fence, version="1", usage={})

    assert here.advance(child).status is RunStatus.FINISHED


def test_while_postgresql_is_away_what_was_read_before_stands(
    site: SiteMaker, book: Rulebook, upload: Upload, database: Database
) -> None:
    upload(ALLOW)
    here = the_site(site, book)

    def cut_off() -> None:
        with ledger.transaction(here.worker.pool) as conn:
            with psycopg.connect(database.owner, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
            book.refresh(conn)

    with pytest.raises(Unavailable):
        cut_off()

    assert here.advance(here.submit("payer")).status is RunStatus.FINISHED


def test_a_policy_that_can_no_longer_be_read_lets_nothing_through(
    site: SiteMaker, book: Rulebook, upload: Upload, database: Database
) -> None:
    upload(ALLOW)
    here = the_site(site, book)
    with psycopg.connect(database.owner) as conn:
        conn.execute("REVOKE SELECT ON policies FROM banksman_worker")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        refresh(here, book)

    assert asked(here).requirement.rule == "policy-refused"
