"""The card of a request: everything its page shows, read in one transaction. Nothing here decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from banksman import digest, quorum, render
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ids import PersonId, RequestId
from banksman.ledger import Connection, decisions, executions, lists, people, requests, runs, views, votes
from banksman.links import LinkKeys
from banksman.records import Decision, Execution, Person, Request, Requirement, Run, Vote
from banksman.states import RequestState, Tier, Verdict
from banksman_gateway import silence, voters
from banksman_gateway.decide import is_genuine
from banksman_gateway.voters import Channel


@dataclass(frozen=True, slots=True)
class Say:
    """One vote with its voter's name, and why it does not count, if it does not."""

    vote: Vote
    who: str
    void: str


@dataclass(frozen=True, slots=True)
class Earlier:
    """A revision before the current one, in full."""

    number: int
    author: str
    text: str
    lines: int


@dataclass(frozen=True, slots=True)
class Card:
    """A request, ready to be shown."""

    request: Request
    run: Run
    action: Mapping[str, Json]
    context: Mapping[str, Json]
    requirement: Requirement
    blocks: Sequence[render.Block]
    schema: Mapping[str, Json]
    """Of the tool, where the request is asked again."""
    warnings: Sequence[str]
    genuine: bool
    """Whether the stored bytes still have the digest that people vote on."""
    siblings: Sequence[Request]
    says: Sequence[Say]
    decision: Decision | None
    reason: str | None
    executions: Sequence[Execution]
    author: str | None
    earlier: Sequence[Earlier]
    end: views.End | None
    """How the run ended, where that is what closed the request."""
    hindrance: str | None
    """Why this reader cannot decide, in words; None when they can."""
    unreachable: str | None
    """Why nobody, or too few, may decide it, and what to do."""

    @property
    def rendered(self) -> str:
        """The hash of what is shown, which a vote from this page carries."""
        return render.hash(self.action, self.context).hex()

    @property
    def open(self) -> bool:
        """Whether it waits for somebody."""
        return self.request.state is RequestState.OPEN and not self.request.overdue

    @property
    def called(self) -> Sequence[str]:
        """The groups whom the ladder has called in by now."""
        return sorted(quorum.called(self.requirement, self.request.age))

    @property
    def ladder(self) -> Sequence[tuple[datetime, Sequence[str]]]:
        """The rungs to come: when, and which groups are told then."""
        request = self.request
        rungs = [(timedelta(seconds=rung.after), rung.groups) for rung in self.requirement.escalation]
        return [(request.created_at + after, groups) for after, groups in sorted(rungs) if after > request.age]

    @property
    def decided(self) -> int:
        """How many of the requests of the same pause are settled."""
        return sum(item.state is not RequestState.OPEN for item in self.siblings)

    @property
    def agreed(self) -> int:
        """How many people have approved what is asked now."""
        return sum(not say.void and say.vote.verdict in (Verdict.APPROVE, Verdict.RERUN) for say in self.says)

    @property
    def start_by(self) -> datetime | None:
        """Until when an approved call may start."""
        return self.decision.start_by if self.decision and self.decision.verdict is RequestState.APPROVED else None

    @property
    def said(self) -> str:
        """The agent's own words of that turn."""
        return _text(self.context, "said")

    @property
    def tool_description(self) -> str:
        """What the tool's author says that it does."""
        return _text(self.context, "tool_description")

    @property
    def why_again(self) -> str:
        """Why this is asked a second time, if it is."""
        return _text(self.context, "why_again")

    @property
    def before(self) -> str:
        """What was approved, where it has changed since, as it was shown."""
        before = self.context.get("before")
        was = {name: before.get(name) for name in ("arguments", "operands", "agent_version")} if before else {}
        return render.text({"tool": self.request.tool, **was}, {}) if was else ""

    @property
    def changes(self) -> Sequence[render.Block]:
        """What has changed since it was approved."""
        before: dict[str, Json] = self.context.get("before") or {}
        now = {**self.action, "schema": self.schema, "files": self.context.get("files")}
        return render.changes(before, now) if before else []

    @property
    def options(self) -> Sequence[str]:
        """The answers that a question offers."""
        offered = self.context.get("options") or self.action["arguments"].get("options")
        return [item for item in cast("list[Json]", offered) if isinstance(item, str)] if offered else []


def read(conn: Connection, request_id: RequestId, reader: Person | None, channel: Channel, marks: LinkKeys) -> Card:
    """The card of a request as this reader may see it, or `NotFound`."""
    request = requests.get(conn, request_id)
    action, genuine = _action(request)
    cast_ = votes.standing(conn, request_id)
    versions = lists.revisions(conn, request_id)
    names = _names(conn, cast_, [author for _, _, author in versions])
    decision = decisions.get(conn, request_id)
    context = digest.parse(request.context, what="The stored context", limit=_CONTEXT_LIMIT)
    requirement = Requirement.from_json(action["requirement"]) if genuine else request.requirement
    return Card(
        request=request,
        run=runs.get(conn, request.run_id),
        action=action,
        context=context,
        requirement=requirement,
        blocks=render.blocks(action, context),
        schema=digest.parse(requests.schema(conn, request.schema_hash)) if context.get("before") else {},
        warnings=render.suspicious(action, context),
        genuine=genuine,
        siblings=lists.siblings(conn, request),
        says=[Say(item, _who(item, names), _void(item, request, marks)) for item in cast_],
        decision=decision,
        reason=_reason(decision),
        executions=[item for item in executions.of_run(conn, request.run_id) if item.request_id == request_id],
        author=None if request.author_id is None else names[request.author_id],
        earlier=_earlier(versions[:-1], context, names),
        end=views.end_of(conn, request) if request.state is RequestState.CANCELLED else None,
        hindrance=None if reader is None else hindrance(request, requirement, reader, channel, cast_),
        unreachable=silence.unreachable(conn, request) if request.state is RequestState.OPEN else None,
    )


def hindrance(
    request: Request, requirement: Requirement, reader: Person, channel: Channel, cast_: Sequence[Vote]
) -> str | None:
    """Why this reader's vote would be refused, told before they fill in a form. `decide` has the last word."""
    if any(item.person_id == reader.id and item.revision == request.revision for item in cast_):
        return "You have voted on this. It waits for others now."
    if request.tier is Tier.HIGH and request.author_id == reader.id:
        return "You edited this, and at tier high its editor does not count. It waits for others now."
    return voters.hindrance(request, requirement, reader, channel)


_CONTEXT_LIMIT = 64 * 1024 * 1024


def _action(request: Request) -> tuple[dict[str, Json], bool]:
    try:
        action = digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES)
    except InvalidInput:
        return {"tool": request.tool, "arguments": {}}, False
    return action, digest.of_action(action) == request.digest


def _names(conn: Connection, cast_: Sequence[Vote], authors: Sequence[PersonId | None]) -> dict[PersonId, str]:
    found = {item.person_id for item in cast_} | set(authors)
    known = people.named(conn, [person for person in found if person is not None])
    return {person_id: f"{person.name} <{person.email}>" for person_id, person in known.items()}


def _void(vote: Vote, request: Request, marks: LinkKeys) -> str:
    if not is_genuine(vote, marks):
        return "does not bear the gateway’s mark: it was not cast here, was changed since, or its key has been revoked"
    return f"is on revision {vote.revision}, which was edited since" if vote.revision != request.revision else ""


def _who(vote: Vote, names: Mapping[PersonId, str]) -> str:
    return "an API key" if vote.person_id is None else names[vote.person_id]


def _reason(decision: Decision | None) -> str | None:
    if decision is None:
        return None
    statement = digest.parse(decision.signed.statement, what="The decision", limit=4 * digest.MAX_BYTES)
    reason = statement.get("reason")
    return reason if isinstance(reason, str) and reason else None


def _earlier(
    versions: Sequence[tuple[int, bytes, PersonId | None]], context: Mapping[str, Json], names: Mapping[PersonId, str]
) -> Sequence[Earlier]:
    found: list[Earlier] = []
    for number, body, author in versions:
        text = render.text(digest.parse(body, what="The stored action", limit=4 * digest.MAX_BYTES), context)
        found.append(Earlier(number, "the agent" if author is None else names[author], text, text.count("\n")))
    return found


def _text(context: Mapping[str, Json], name: str) -> str:
    value = context.get(name)
    return value if isinstance(value, str) else ""
