"""The card of a request: everything its page shows, read in one transaction. Nothing here decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import cast

from banksman import diffs, digest, masks, render, vault
from banksman.blocks import Block
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ids import PersonId, RequestId
from banksman.ledger import Connection, decisions, executions, lists, people, requests, runs, views, votes
from banksman.links import LinkKeys
from banksman.masks import Cover
from banksman.records import Decision, Execution, Person, Request, Requirement, Run, Vote
from banksman.render import Rendering
from banksman.states import RequestState, Tier
from banksman_gateway import silence, stand_ins, tally, voters
from banksman_gateway.tally import Tally
from banksman_gateway.voters import Channel


@dataclass(frozen=True, slots=True)
class Say:
    """One vote with its voter's name, whether it counts, why not, and for whom who is away."""

    vote: Vote
    who: str
    counts: bool
    void: str
    instead_of: Sequence[str]


@dataclass(frozen=True, slots=True)
class Earlier:
    """A revision before the current one, in full, and what the next one changed."""

    number: int
    author: str
    text: str
    lines: int
    changes: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """A request, ready to be shown."""

    request: Request
    run: Run
    action: Mapping[str, Json]
    context: Mapping[str, Json]
    requirement: Requirement
    rendering: Rendering
    schema: Mapping[str, Json]
    """Of the tool, where the request is asked again."""
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
    tally: Tally
    may_withdraw: bool
    """Whether this reader has a vote here that they may take back."""
    company: views.Company

    @property
    def open(self) -> bool:
        """Whether it waits for somebody."""
        return self.request.state is RequestState.OPEN and not self.request.overdue

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
    def needs(self) -> str:
        """What it takes, in words."""
        return tally.needs(self.requirement)

    @property
    def start_by(self) -> datetime | None:
        """Until when an approved call may start."""
        return self.decision.start_by if self.decision and self.decision.verdict is RequestState.APPROVED else None

    @property
    def said(self) -> str:
        """The agent's own words of that turn; what is secret in the call is covered in them too."""
        return self.around.text(_text(self.context, "said"))

    @cached_property
    def around(self) -> Cover:
        """What covers the words around the call: they are those of its whole turn."""
        others = (one for one in self.siblings if one.id != self.request.id)
        return masks.around(self.action, *(_action(one)[0] for one in others))

    def returned(self, call: Execution) -> str:
        """What a call of it returned, its secrets covered."""
        return self.around.text((call.result or b"").decode("utf-8", "replace"))

    @property
    def tool_description(self) -> str:
        """What the tool's author says that it does."""
        return _text(self.context, "tool_description")

    @property
    def why_again(self) -> str:
        """Why this is asked a second time, if it is."""
        return self.around.text(_text(self.context, "why_again"))

    @property
    def before(self) -> str:
        """What was approved, where it has changed since, as it was shown."""
        before = self.context.get("before")
        was = {name: before.get(name) for name in ("arguments", "operands", "agent_version")} if before else {}
        return render.of({**self.action, **was}, {}).text if was else ""

    @property
    def changes(self) -> Sequence[Block]:
        """What has changed since it was approved."""
        before: dict[str, Json] = self.context.get("before") or {}
        now = {**self.action, "schema": self.schema, "files": self.context.get("files")}
        cover = masks.of(self.action)
        return diffs.changes(masks.snapshot(before, cover), masks.snapshot(now, cover)) if before else []

    @property
    def options(self) -> Sequence[str]:
        """The answers that a question offers."""
        offered = self.context.get("options") or self.action["arguments"].get("options")
        return [item for item in cast("list[Json]", offered) if isinstance(item, str)] if offered else []


def read(conn: Connection, request_id: RequestId, reader: Person | None, channel: Channel, marks: LinkKeys) -> Card:
    """The card of a request as this reader may see it, or `NotFound`."""
    request = requests.get(conn, request_id)
    action, genuine = _action(request)
    cast_ = votes.of_request(conn, request_id)
    versions = lists.revisions(conn, request_id)
    names = _names(conn, cast_, [author for _, _, author in versions])
    decision = decisions.get(conn, request_id)
    context = digest.parse(request.context, what="The stored context", limit=digest.MAX_CONTEXT_BYTES)
    requirement = Requirement.from_json(action["requirement"]) if genuine else request.requirement
    signed = replace(request, requirement=requirement)
    stands = tally.of_each(conn, [(signed, cast_, decision)], marks)[request_id]
    mine = [item.id for item in cast_ if reader is not None and item.person_id == reader.id]
    is_open = request.state is RequestState.OPEN and not request.overdue
    return Card(
        request=request,
        run=runs.get(conn, request.run_id),
        action=action,
        context=context,
        requirement=requirement,
        rendering=render.of(action, context),
        schema=digest.parse(requests.schema(conn, request.schema_hash)) if context.get("before") else {},
        genuine=genuine,
        siblings=_siblings(conn, request),
        says=[_say(item, _who(item, names), stands) for item in cast_],
        decision=decision,
        reason=_reason(decision),
        executions=[item for item in executions.of_run(conn, request.run_id) if item.request_id == request_id],
        author=None if request.author_id is None else names[request.author_id],
        earlier=_earlier(versions, context, names),
        end=views.end_of(conn, request) if request.state is RequestState.CANCELLED else None,
        hindrance=None if reader is None else _hindrance(conn, signed, reader, channel, cast_=cast_, stands=stands),
        unreachable=silence.unreachable(conn, request) if request.state is RequestState.OPEN else None,
        tally=stands,
        may_withdraw=is_open and any(vote not in stands.void for vote in mine),
        company=views.company(conn, [request_id])[request_id],
    )


def _hindrance(
    conn: Connection, request: Request, reader: Person, channel: Channel, *, cast_: Sequence[Vote], stands: Tally
) -> str | None:
    """Why this reader's vote would be refused, told before they fill in a form. `decide` has the last word."""
    if any(item.person_id == reader.id and item.id not in stands.void for item in cast_):
        return "You have voted on this. It waits for others now."
    if request.tier is Tier.HIGH and request.author_id == reader.id:
        return "You edited this, and at tier high its editor does not count. It waits for others now."
    standing = [item for item in cast_ if item.id not in stands.void]
    who = stand_ins.standing(conn, request, [reader], standing)[reader.id]
    return voters.hindrance(request, request.requirement, who, channel)


def _action(request: Request) -> tuple[dict[str, Json], bool]:
    try:
        action = digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES)
    except InvalidInput:
        return {"tool": request.tool, "arguments": {}}, False
    return action, digest.of_action(action) == request.digest


def _siblings(conn: Connection, request: Request) -> Sequence[Request]:
    with vault.leniently():
        return lists.siblings(conn, request)


def _names(conn: Connection, cast_: Sequence[Vote], authors: Sequence[PersonId | None]) -> dict[PersonId, str]:
    found = {item.person_id for item in cast_} | set(authors)
    known = people.named(conn, [person for person in found if person is not None])
    return {person_id: f"{person.name} <{person.email}>" for person_id, person in known.items()}


def _say(vote: Vote, who: str, stands: Tally) -> Say:
    return Say(vote, who, vote.id in stands.agreed, stands.void.get(vote.id, ""), stands.instead_of.get(vote.id, ()))


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
    actions = [digest.parse(body, what="The stored action", limit=4 * digest.MAX_BYTES) for _, body, _ in versions]
    for (number, _, author), old, new in zip(versions, actions, actions[1:], strict=False):
        text = render.of(old, context).text
        by = "the agent" if author is None else names[author]
        was, will = (masks.of(side).value(side["arguments"]) for side in (old, new))
        found.append(Earlier(number, by, text, text.count("\n"), diffs.edited(was, will)))
    return found


def _text(context: Mapping[str, Json], name: str) -> str:
    value = context.get(name)
    return value if isinstance(value, str) else ""
