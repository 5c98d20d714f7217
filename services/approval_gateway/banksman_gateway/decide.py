"""Deciding: the one doorway through which a person's say becomes a vote, and votes become a signed decision.

Everything happens in the caller's transaction, behind the run's row: two people who decide at the same moment meet
there, one after the other, and the second is told what the first one did. What a person was shown (digest and
revision) must be what is asked now. The digest is worked out afresh from the stored bytes before anything is signed,
so a row that was changed behind our back is refused, not blessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import cast

from banksman import digest, ids
from banksman.digest import Json
from banksman.errors import AlreadyDecided, InvalidInput, NotAllowed, NotGenuine
from banksman.ids import NoticeId, RequestId, RunId, VoteId
from banksman.ledger import Connection, audit, decisions, families, people, requests, runs, stops, votes
from banksman.links import LinkKeys
from banksman.records import Decision, Event, Key, Person, Request, Vote
from banksman.signing import Signer
from banksman.states import SETTLES, VERDICTS, Kind, RequestState, Tier, Verdict
from banksman_gateway import edits, late, stand_ins, voters, waited_for
from banksman_gateway.stand_ins import Standing
from banksman_gateway.voters import Channel, Seat

MOST_VOTES = 20
"""How often one person may vote on one revision, taking the vote before back each time: every one of them is kept."""
MOST_REASON = 4000
"""How many characters a reason may have."""
START_GRACE = timedelta(hours=24)
"""How long after the last sibling's deadline an approved call may still start."""


@dataclass(frozen=True, slots=True)
class Pen:
    """What the gateway decides with: the key under decisions, the mark on votes, how soon a lost wake-up is found."""

    signer: Signer
    marks: LinkKeys
    hint: timedelta


@dataclass(frozen=True, slots=True)
class Voter:
    """Who votes, and the way they came: a person, or (for external work) an API key."""

    channel: Channel
    person: Person | None = None
    key: Key | None = None

    @property
    def actor(self) -> str:
        """The name in the audit log."""
        if self.person is not None:
            return ids.show("per", self.person.id)
        assert self.key is not None
        return ids.show("key", self.key.id)


@dataclass(frozen=True, slots=True)
class Ballot:
    """What a vote says, and what its voter was shown.

    `arguments` edits the call: a JSON merge patch (RFC 7396) onto the arguments that were shown. `exact` edits it too:
    all of the arguments as they are to be, nulls among them.
    """

    verdict: Verdict
    digest: bytes
    revision: int
    reason: str | None = None
    arguments: Json = None
    exact: Json = None
    answer: Json = None
    stop_run: bool = False
    render_hash: bytes | None = None

    @property
    def edits(self) -> bool:
        """Whether it changes the call."""
        return self.arguments is not None or self.exact is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The request after the vote, the segment to wake when the run waits for nothing more, notices of an edit."""

    request: Request
    resume: tuple[RunId, int] | None
    told: Sequence[NoticeId] = ()


def vote(conn: Connection, request_id: RequestId, voter: Voter, ballot: Ballot, pen: Pen) -> Outcome:
    """One vote on an open request, and, when it completes the requirement, the signed decision."""
    if ballot.stop_run or ballot.verdict is Verdict.STOP:
        families.hold_whole(conn, request_id)
    request = requests.hold(conn, request_id)
    if request.state is not RequestState.OPEN or request.overdue:
        raise late.answer(conn, request)
    _must_be_what_was_shown(conn, request, ballot)
    _genuine_action(request)
    _must_fit(request, ballot)
    earlier = votes.of_request(conn, request.id)
    standing = [item for item in earlier if not is_withdrawn(item, pen.marks)]
    who = _must_be_entitled(conn, request, voter, ballot, standing)
    if ballot.edits:
        request = edits.revise(conn, request, voter.person, arguments=ballot.arguments, exact=ballot.exact)
    said = _cast(conn, request, voter, ballot, earlier, pen=pen)
    agreed = [*_alike(conn, request, ballot, earlier, pen.marks), said]
    counted, enough = voters.counting(conn, request, agreed, who)
    if SETTLES[ballot.verdict] is RequestState.APPROVED and not enough:
        _note(conn, request, voter.actor, "vote.cast", {"verdict": ballot.verdict.value, "revision": request.revision})
        told = waited_for.tell_revised(conn, request) if request.revision > ballot.revision else ()
        return Outcome(request, None, told)
    return _settle(conn, request, voter, ballot, counted, pen=pen)


def is_genuine(item: Vote, marks: LinkKeys) -> bool:
    """Whether a stored vote was cast through this doorway, and says what it said then."""
    return marks.mark_holds(item.mac, item.id, _marked(item))


def withdrawing(item: Vote) -> dict[str, Json]:
    """What the mark covers on the row that takes this vote back."""
    return {**_marked(item), "withdrawn": True}


def is_withdrawn(item: Vote, marks: LinkKeys) -> bool:
    """Whether its voter took a vote back here."""
    return any(marks.mark_holds(mark, item.id, withdrawing(item)) for mark in item.withdrawals)


def _must_be_what_was_shown(conn: Connection, request: Request, ballot: Ballot) -> None:
    if ballot.revision == request.revision and ballot.digest == request.digest:
        return
    raise late.changed(conn, request, ballot.revision)


def _must_fit(request: Request, ballot: Ballot) -> None:
    allowed = VERDICTS[request.kind]
    if ballot.verdict not in allowed:
        choices = ", ".join(sorted(verdict.value for verdict in allowed))
        raise InvalidInput(f"A request of kind {request.kind.value} takes {choices}, not {ballot.verdict.value}.")
    if ballot.edits and (request.kind is not Kind.APPROVAL or ballot.verdict is not Verdict.APPROVE):
        raise InvalidInput("Arguments can only be edited together with approving a tool call.")
    if ballot.verdict in (Verdict.ANSWER, Verdict.HAPPENED) and ballot.answer is None:
        raise InvalidInput("`answer` is missing: it is what the agent is told.")
    if ballot.stop_run and SETTLES[ballot.verdict] is not RequestState.DENIED:
        raise InvalidInput("`stop_run` goes together with denying only.")
    if len(ballot.reason or "") > MOST_REASON:
        raise InvalidInput(f"A reason may have {MOST_REASON:,} characters.")
    if request.tier is Tier.HIGH and not (ballot.reason or "").strip():
        raise InvalidInput("A vote at tier high needs a reason.")


def _must_be_entitled(
    conn: Connection, request: Request, voter: Voter, ballot: Ballot, standing: Sequence[Vote]
) -> Standing | None:
    if voter.person is None:
        answers = voter.key is not None and "requests:answer" in voter.key.scopes
        if answers and request.kind is Kind.EXTERNAL and ballot.verdict is Verdict.ANSWER:
            return None
        raise NotAllowed("API keys cannot vote: people do. (Scope requests:answer answers kind external alone.)")
    # The row is read again here: a person disabled a moment ago no longer votes.
    person = people.get(conn, voter.person.id)
    who = stand_ins.standing(conn, request, [person], standing)[person.id]
    if (why := voters.hindrance(request, request.requirement, who, voter.channel)) is not None:
        raise NotAllowed(why)
    return who


def _cast(
    conn: Connection, request: Request, voter: Voter, ballot: Ballot, earlier: Sequence[Vote], *, pen: Pen
) -> Vote:
    """The vote, in place of the one that this voter took back, if any; `AlreadyVoted` while theirs stands."""
    mine = [item for item in earlier if voter.person and item.person_id == voter.person.id]
    mine = [item for item in mine if item.revision == request.revision]
    said = Vote(
        id=VoteId(ids.new()),
        request_id=request.id,
        revision=request.revision,
        digest=request.digest,
        verdict=ballot.verdict,
        channel=voter.channel,
        person_id=voter.person.id if voter.person else None,
        key_id=voter.key.id if voter.key and not voter.person else None,
        reason=ballot.reason,
        answer=ballot.answer,
        render_hash=ballot.render_hash,
        replaces=mine[-1].id if mine and is_withdrawn(mine[-1], pen.marks) else None,
    )
    said = replace(said, mac=pen.marks.mark(said.id, _marked(said)))
    if len(mine) >= MOST_VOTES or not votes.cast(conn, said):
        raise late.voted(request, mine)
    return said


def _alike(
    conn: Connection, request: Request, ballot: Ballot, earlier: Sequence[Vote], marks: LinkKeys
) -> Sequence[Vote]:
    """The votes of this verdict on this revision that were cast through this doorway, and not taken back through it."""
    found = [item for item in earlier if item.revision == request.revision and item.verdict is ballot.verdict]
    for item in found:
        forged = ["withdrawal" for mark in item.withdrawals if not marks.mark_holds(mark, item.id, withdrawing(item))]
        for what in forged if is_genuine(item, marks) else ["vote"]:
            why = "It does not bear the gateway's mark: it was not made here, was changed since, or its key is gone."
            _note(conn, request, "gateway", f"{what}.refused", {"vote": ids.show("vot", item.id), "why": why})
    return [item for item in found if is_genuine(item, marks) and not is_withdrawn(item, marks)]


def _settle(
    conn: Connection, request: Request, voter: Voter, ballot: Ballot, counted: Sequence[Seat], *, pen: Pen
) -> Outcome:
    """Open → approved, denied or answered, as a signed statement; the run is woken when nothing else is open."""
    verdict = SETTLES[ballot.verdict]
    last_deadline, now = requests.last_deadline(conn, request.run_id)
    start_by = last_deadline + START_GRACE
    statement = _statement(request, ballot, counted, verdict, now=now, start_by=start_by)
    decision = Decision(request.id, request.revision, verdict, pen.signer.sign(statement), start_by, now)
    if not decisions.settle(conn, decision):
        raise AlreadyDecided("This request was settled a moment ago. Read it again.", {"state": "settled"})
    _note(conn, request, voter.actor, f"request.{verdict.value}", {"revision": request.revision, "kid": pen.signer.kid})
    settled = replace(request, state=verdict, settled_at=now)
    if ballot.stop_run or ballot.verdict is Verdict.STOP:
        who = voter.person.email if voter.person else "an API key"
        why = f"{who} stopped the run at {request.tool}" + (f": {ballot.reason}" if ballot.reason else ".")
        both = [families.root(conn, request.run_id), request.run_id]
        stops.stop(conn, both, voter.actor, because="A person stopped it at one of its calls.", error=why)
        return Outcome(settled, None)
    segment = runs.wake(conn, request.run_id, hint=pen.hint)
    return Outcome(settled, None if segment is None else (request.run_id, segment))


def _statement(
    request: Request,
    ballot: Ballot,
    counted: Sequence[Seat],
    verdict: RequestState,
    *,
    now: datetime,
    start_by: datetime,
) -> dict[str, Json]:
    action = _genuine_action(request)
    return {
        "v": 1,
        "request": ids.show("req", request.id),
        "run": ids.show("run", request.run_id),
        "kind": request.kind.value,
        "revision": request.revision,
        "digest": request.digest.hex(),
        "verdict": verdict.value,
        "said": ballot.verdict.value,
        "tool": request.tool,
        "tier": request.tier.value,
        "requirement": action["requirement"],
        "arguments": action["arguments"],
        "edited": request.author_id is not None,
        "answer": ballot.answer,
        "reason": ballot.reason,
        "stop_run": ballot.stop_run,
        "voters": [_voter(request, *seat) for seat in counted],
        "decided_at": stamp(now),
        "start_by": stamp(start_by),
    }


def _by(item: Vote) -> str:
    if item.person_id is not None:
        return ids.show("per", item.person_id)
    return ids.show("key", cast("ids.KeyId", item.key_id))


def _marked(item: Vote) -> dict[str, Json]:
    """What the gateway's mark on a vote covers."""
    return {
        "by": _by(item),
        "request": ids.show("req", item.request_id),
        "revision": item.revision,
        "digest": item.digest.hex(),
        "verdict": item.verdict.value,
        "channel": item.channel,
        "rendered": item.render_hash.hex() if item.render_hash is not None else None,
    }


def _voter(request: Request, item: Vote, who: Standing | None) -> dict[str, Json]:
    return {
        "by": _by(item),
        "as": None if who is None else who.role(request),
        "instead_of": [] if who is None else [ids.show("per", absent.id) for absent in who.instead_of],
        "channel": item.channel,
        "rendered": item.render_hash.hex() if item.render_hash is not None else None,
        "vote": ids.show("vot", item.id),
    }


def _genuine_action(request: Request) -> dict[str, Json]:
    """The action behind the digest, once the digest has been worked out again from its bytes."""
    action = digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES)
    if digest.of_action(action) != request.digest:
        raise NotGenuine("The stored request does not match its own digest. Nothing can be decided on it.")
    if action["requirement"] != request.requirement.as_json() or action["requirement"]["tier"] != request.tier.value:
        raise NotGenuine("The stored requirement is not the one under the digest. Nothing can be decided on it.")
    return action


def _note(conn: Connection, request: Request, actor: str, action: str, body: dict[str, Json]) -> None:
    audit.append(conn, Event(actor, action, request.run_id, request.id, body))


def stamp(moment: datetime) -> str:
    """A moment, as statements have it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")
