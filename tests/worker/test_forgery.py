"""Whoever can write to the database, the history or the code around a run gets no tool started by that: the call is
not executed, the audit log says so, and so does what people read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from pydantic_ai.tools import ToolApproved

from banksman import digest, ids, ledger, vault
from banksman.digest import Json
from banksman.ids import RequestId, RunId
from banksman.ledger import Connection, audit, decisions, executions, runs, votes
from banksman.policy import Policy
from banksman.records import Event, Request
from banksman.signing import Signed, Signer, Verifier, base64url
from banksman.states import Kind, RequestState, RunStatus, Tier, Verdict
from banksman_gateway import decide
from banksman_worker import resuming, segment
from banksman_worker.asking import question
from tests.conftest import VAULT_KEYS
from tests.worker.conftest import HINT, Site, SiteMaker
from tests.worker.test_segment import a_site, agent_calling

Forge = Callable[[Connection, Site, Request], object]
Forger = Callable[[Forge, Site, Request], None]


def sign_again(conn: Connection, request: Request, signer: Signer) -> None:
    """The same statement, under another signature."""
    found = decisions.get(conn, request.id)
    assert found is not None
    write(conn, request.id, signer.sign(json.loads(found.signed.statement)))


def write(conn: Connection, request_id: RequestId, signed: Signed) -> None:
    conn.execute(
        "UPDATE decisions SET statement = %s, signature = %s, kid = %s WHERE request_id = %s",
        (vault.seal(signed.statement, ("decisions.statement", request_id)), signed.signature, signed.kid, request_id),
    )


def nobody_signed(conn: Connection, _: Site, request: Request) -> None:
    conn.execute("UPDATE decisions SET signature = decode(repeat('00', 64), 'hex')")
    del request


def another_key_of_the_same_name(conn: Connection, here: Site, request: Request) -> None:
    sign_again(conn, request, Signer(here.pen.signer.kid, b"\x09" * 32))


def an_unknown_key(conn: Connection, _: Site, request: Request) -> None:
    sign_again(conn, request, Signer("k9", b"\x09" * 32))


def a_changed_statement(conn: Connection, _: Site, request: Request) -> None:
    found = decisions.get(conn, request.id)
    assert found is not None
    body = found.signed.statement.replace(b'"amount":5', b'"amount":6')
    write(conn, request.id, Signed(body, found.signed.signature, found.signed.kid))


def no_decision_at_all(conn: Connection, _: Site, request: Request) -> None:
    conn.execute("DELETE FROM decisions WHERE request_id = %s", (request.id,))


def other_arguments(conn: Connection, _: Site, request: Request) -> None:
    action = digest.parse(request.action)
    action["arguments"] = {"amount": 6, "currency": "EUR"}
    conn.execute(
        "UPDATE revisions SET action = %s, digest = %s",
        (vault.seal(digest.canonical(action), ("revisions.action", request.id, 1)), digest.of_action(action)),
    )


def another_history(conn: Connection, _: Site, request: Request) -> None:
    del request
    conn.execute(
        """
        UPDATE snapshots
        SET messages = decode(replace(encode(messages, 'escape'), '"amount":5', '"amount":6'), 'escape')
        """
    )


def another_tool_in_the_history(name: str, conn: Connection, *_: object) -> None:
    conn.execute(
        """
        UPDATE snapshots
        SET messages = decode(replace(encode(messages, 'escape'), '"tool_name":"pay"', %s), 'escape')
        """,
        (f'"tool_name":"{name}"',),
    )


def a_disabled_voter(conn: Connection, here: Site, _: Request) -> None:
    conn.execute("UPDATE people SET disabled_at = now() WHERE id = %s", (here.reviewers[0].id,))


def a_voter_who_is_no_reviewer_any_more(conn: Connection, here: Site, _: Request) -> None:
    conn.execute("UPDATE people SET roles = '{auditor}' WHERE id = %s", (here.reviewers[0].id,))


FORGERIES: dict[Forge, str] = {
    nobody_signed: "signature",
    another_key_of_the_same_name: "signature",
    an_unknown_key: "does not know",
    a_changed_statement: "signature",
    no_decision_at_all: "without a signed decision",
    other_arguments: "does not cover",
    another_history: "what the model had written",
    a_disabled_voter: "may no longer vote",
    a_voter_who_is_no_reviewer_any_more: "may no longer vote",
}


@pytest.fixture
def forger(owner_pool: ledger.Pool) -> Forger:
    """Does something with the owner's rights, past every trigger."""

    def forge(act: Forge, here: Site, request: Request) -> None:
        with ledger.transaction(owner_pool) as conn:
            conn.execute("SET LOCAL session_replication_role = replica")
            act(conn, here, request)

    return forge


def refused(here: Site, run_id: RunId, words: str) -> bool:
    """Whether nothing ran, the audit log says why, and so does what people read."""
    with ledger.transaction(here.gateway) as conn:
        events = [event for event in audit.of_run(conn, run_id) if event.action == "execution.refused"]
    run = here.run(run_id)
    read = [run.error or "", *(json.loads(item.context)["why_again"] or "" for item in here.open(run_id))]
    return (
        here.effects == []
        and any(words in str(event.body["why"]) for event in events)
        and any(words in text for text in read)
    )


@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forgery_executes_nothing_and_is_told(site: SiteMaker, forger: Forger, forge: Forge) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")

    forger(forge, here, request)
    run = here.advance(run_id)

    assert run.status is RunStatus.WAITING
    assert refused(here, run_id, FORGERIES[forge])


@pytest.mark.usefixtures("unsealed")
@pytest.mark.parametrize("name", ["send", "give"])
def test_another_tool_in_the_history_ends_the_run(site: SiteMaker, forger: Forger, name: str) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")

    forger(partial(another_tool_in_the_history, name), here, request)
    run = here.advance(run_id)

    assert run.status is RunStatus.FAILED
    assert refused(here, run_id, "the call of pay")


SWAPS = {
    "another run's conversation": """
        UPDATE snapshots
        SET messages = (
            SELECT messages FROM snapshots AS other WHERE run_id = %(theirs)s AND other.seq = snapshots.seq)
        WHERE run_id = %(ours)s
        """,
    "another column": "UPDATE snapshots SET messages = state WHERE run_id = %(ours)s",
    "another call": """
        UPDATE revisions
        SET action = (SELECT action FROM revisions JOIN requests ON id = request_id WHERE run_id = %(theirs)s)
        WHERE request_id IN (SELECT id FROM requests WHERE run_id = %(ours)s)
        """,
}


@pytest.mark.parametrize("what", list(SWAPS))
def test_what_was_sealed_for_another_row_is_refused_and_told(site: SiteMaker, forger: Forger, what: str) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    theirs, _ = here.waiting("payer")
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")

    def swap(conn: Connection, *_: object) -> None:
        conn.execute(SWAPS[what].encode(), {"ours": run_id, "theirs": theirs})

    forger(swap, here, request)
    run = here.advance(run_id)

    assert run.status is RunStatus.FAILED
    assert "belongs to another row or column" in (run.error or "")
    assert here.effects == []
    assert [event.action for event in events(here, run_id)][-2:] == ["run.failed", "execution.refused"]


def test_a_run_whose_task_was_swapped_starts_nothing_and_ends(site: SiteMaker, forger: Forger) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    theirs, [request] = here.waiting("payer", "Pay Ana.")
    run_id = here.submit("payer", "Pay Ben.")

    def swap(conn: Connection, *_: object) -> None:
        conn.execute("UPDATE runs SET prompt = (SELECT prompt FROM runs WHERE id = %s) WHERE id = %s", (theirs, run_id))

    forger(swap, here, request)
    segment.advance(here.worker, run_id, 0)

    assert [event.action for event in events(here, run_id)] == ["run.started", "run.failed", "execution.refused"]


def test_a_worker_without_the_key_leaves_the_run_to_others(site: SiteMaker) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    before = here.run(run_id).attempts

    vault.use("")
    segment.advance(here.worker, run_id, 1)
    vault.use(f"{VAULT_KEYS},plain")  # what it wrote about it has no seal

    run = here.run(run_id)
    assert (run.status, run.attempts) == (RunStatus.QUEUED, before)
    assert "which this process does not have" in (run.error or "")


def events(here: Site, run_id: RunId) -> list[Event]:
    with ledger.transaction(here.gateway) as conn:
        return list(audit.of_run(conn, run_id))


def test_what_was_forged_can_be_asked_again_and_then_runs_once(site: SiteMaker, forger: Forger) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    forger(nobody_signed, here, request)
    here.advance(run_id)

    run = here.decide_all(run_id, "approve")

    assert run.status is RunStatus.FINISHED
    assert here.effects == [("pay", 5, "EUR")]


def test_a_decision_is_good_for_its_own_request_alone(site: SiteMaker, forger: Forger) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    _, [approved] = here.waiting("payer")
    here.vote(approved, "approve")
    run_id, [request] = here.waiting("payer")

    def replay(conn: Connection, _: Site, to: Request) -> None:
        found = decisions.get(conn, approved.id)
        assert found is not None
        conn.execute(
            "UPDATE requests SET state = 'approved', settled_at = now(), due_at = NULL WHERE id = %s", (to.id,)
        )
        conn.execute("UPDATE runs SET status = 'queued', due_at = now() WHERE id = %s", (to.run_id,))
        conn.execute(
            """
            INSERT INTO decisions (request_id, revision, verdict, statement, signature, kid, start_by)
            VALUES (%s, 1, 'approved', ''::bytea, ''::bytea, '', %s)
            """,
            (to.id, found.start_by),
        )
        write(conn, to.id, found.signed)

    forger(replay, here, request)
    here.advance(run_id)

    assert refused(here, run_id, "another request")


def test_a_denial_cannot_be_turned_into_an_approval(site: SiteMaker, forger: Forger) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "deny")

    def turn(conn: Connection, *_: object) -> None:
        conn.execute("UPDATE requests SET state = 'approved'")
        conn.execute("UPDATE decisions SET verdict = 'approved'")

    forger(turn, here, request)
    here.advance(run_id)

    assert refused(here, run_id, "does not cover")


def test_a_revoked_key_approves_nothing_and_a_retired_one_still_does(site: SiteMaker, signer: Signer) -> None:
    for status, pays in (("revoked", False), ("retired", True)):
        other = Signer("k2", b"\x02" * 32).public()
        trusts = Verifier.read(f"{signer.public().replace('current', status)},{other}")
        here = a_site(site, ("pay", {"amount": 5}), trusts=trusts)
        run_id, [request] = here.waiting("payer")
        here.vote(request, "approve")

        here.advance(run_id)

        assert (here.effects == [("pay", 5, "EUR")]) is pays
        assert refused(here, run_id, "revoked") is not pays


def test_arguments_slipped_in_on_the_way_to_the_tool_are_not_what_runs(
    site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")

    def slip(_: object) -> ToolApproved:
        return ToolApproved(override_args={"amount": 6, "currency": "EUR"})

    monkeypatch.setattr(resuming, "_approval", slip)

    here.advance(run_id)

    assert refused(here, run_id, "arguments")


def test_a_decision_that_is_changed_between_the_gate_and_the_start_starts_nothing(
    site: SiteMaker, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    verify = Verifier.verify

    def verify_and_forge(self: Verifier, signed: Signed) -> dict[str, Json]:
        found = verify(self, signed)
        forger(nobody_signed, here, request)
        return found

    monkeypatch.setattr(Verifier, "verify", verify_and_forge)

    run = here.advance(run_id)

    assert run.status is RunStatus.FAILED
    assert refused(here, run_id, "signature")


def test_a_vote_that_was_not_cast_here_does_not_count(
    site: SiteMaker, forger: Forger, gateway_pool: ledger.Pool
) -> None:
    here = a_site(site, ("pay", {"amount": 5}), policy=Policy(tiers={"pay": Tier.HIGH}))
    run_id, [request] = here.waiting("payer")

    def stuff(conn: Connection, _: Site, on: Request) -> None:
        conn.execute(
            """
            INSERT INTO votes (id, request_id, revision, digest, verdict, person_id, channel, mac)
            VALUES (%s, %s, 1, %s, 'approve', %s, 'session', %s)
            """,
            (ids.new(), on.id, on.digest, here.reviewers[1].id, f"k1.{base64url(bytes(32))}"),
        )

    forger(stuff, here, request)
    outcome = here.vote(request, "approve", reason="Checked.")

    assert outcome.request.state is RequestState.OPEN
    assert outcome.resume is None
    with ledger.transaction(gateway_pool) as conn:
        [event] = [event for event in audit.of_run(conn, run_id) if event.action == "vote.refused"]
    assert "mark" in str(event.body["why"])


@pytest.mark.parametrize("change", ["verdict = 'approve'", "channel = 'session'", "digest = '\\x00'"])
def test_a_vote_that_was_changed_does_not_count(site: SiteMaker, forger: Forger, change: str) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    _, [request] = here.waiting("payer")
    with ledger.transaction(here.gateway) as conn:
        voter = decide.Voter("token", here.reviewers[0])
        ballot = decide.Ballot(Verdict.DENY, request.digest, 1)
        decide.vote(conn, request.id, voter, ballot, decide.Pen(here.pen.signer, here.pen.marks, HINT))
        [vote] = votes.of_request(conn, request.id)
    assert decide.is_genuine(vote, here.pen.marks)

    def alter(conn: Connection, *_: object) -> None:
        conn.execute(f"UPDATE votes SET {change}".encode())

    forger(alter, here, request)

    with ledger.transaction(here.gateway) as conn:
        [vote] = votes.of_request(conn, request.id)
    assert not decide.is_genuine(vote, here.pen.marks)


def answered_by_nobody(conn: Connection, _: Site, request: Request) -> None:
    conn.execute(
        "UPDATE requests SET state = 'answered', settled_at = now(), due_at = NULL WHERE id = %s", (request.id,)
    )
    conn.execute("UPDATE runs SET status = 'queued', due_at = now() WHERE id = %s", (request.run_id,))
    conn.execute(
        """
        INSERT INTO decisions (request_id, revision, verdict, statement, signature, kid, start_by)
        VALUES (%s, 1, 'answered', %s, decode(repeat('00', 64), 'hex'), 'k1', now() + interval '1 day')
        """,
        (request.id, vault.seal(b"{}", ("decisions.statement", request.id))),
    )


def refused_decisions(here: Site, run_id: RunId) -> list[str]:
    with ledger.transaction(here.gateway) as conn:
        return [str(event.body["why"]) for event in audit.of_run(conn, run_id) if event.action == "decision.refused"]


def test_a_forged_answer_reaches_no_agent(site: SiteMaker, forger: Forger) -> None:
    agent = agent_calling(("ask", {}))

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def ask() -> str:
        raise question("Which one?")

    del ask
    here = site({"asker": agent})
    run_id, [request] = here.waiting("asker")

    forger(answered_by_nobody, here, request)
    run = here.advance(run_id)

    [[_, told]] = json.loads(run.output)
    assert "no answer to it was used. The signature" in told
    assert ["signature" in why for why in refused_decisions(here, run_id)] == [True]


def test_a_forged_outcome_is_asked_again(site: SiteMaker, forger: Forger, owner_pool: ledger.Pool) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "approve")
    with ledger.transaction(here.worker.pool) as conn:
        claim = runs.claim(conn, run_id, 1, owner="dead", lease=timedelta(seconds=30))
        assert claim is not None
        assert executions.start(
            conn,
            run_id,
            claim.fence,
            step=1,
            call_id="c0",
            attempt=1,
            tool="pay",
            digest=request.digest,
            request_id=request.id,
            voters={},
            start_by=None,
        )
    with ledger.transaction(owner_pool) as conn:
        conn.execute("UPDATE runs SET due_at = now() - interval '1 s' WHERE id = %s", (run_id,))
    here.advance(run_id)
    [doubt] = here.open(run_id)
    assert doubt.kind is Kind.OUTCOME

    forger(answered_by_nobody, here, doubt)
    run = here.advance(run_id)

    assert run.status is RunStatus.WAITING
    assert here.effects == []
    [again] = here.open(run_id)
    assert again.kind is Kind.OUTCOME
    assert "What was said about it before does not count" in json.loads(again.context)["why_again"]
    assert len(refused_decisions(here, run_id)) == 1


def test_a_denial_that_nobody_signed_still_executes_nothing_and_is_told(site: SiteMaker, forger: Forger) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    here.vote(request, "deny")

    forger(nobody_signed, here, request)
    run = here.advance(run_id)

    assert here.effects == []
    assert "The signature" in run.output
    assert len(refused_decisions(here, run_id)) == 1
