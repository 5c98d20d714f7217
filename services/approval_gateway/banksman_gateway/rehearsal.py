"""Rehearsals of a policy: what it says of one call, and what it would have said of the calls that were asked before.

A replay reads the past in pages. Each HTTP call reads so many requests, a hundred to a transaction, judges them
outside of it, and gives back counts, examples and where to go on: 10,000 requests hold neither a transaction nor
memory for longer than a page. It sees what was asked; calls that were allowed left no request behind.

A candidate is judged by the arguments as they are, secrets too, and the counts say what holds of them. So only an
administrator tries one on the past, and the audit log says so before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints

from banksman import digest, durations, ids, policy, rule_file, standing_policy, vault
from banksman.digest import Json
from banksman.errors import InvalidInput, NotAllowed
from banksman.ids import RequestId
from banksman.ledger import Connection, agents, audit
from banksman.ledger import rehearsal as rows
from banksman.ledger.rehearsal import Past
from banksman.policy import Call, Effects, Judgement
from banksman.records import Event, Requirement
from banksman.standing_policy import Standing
from banksman.states import RequestState
from banksman_gateway import door, policies, problems
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Parts
from banksman_gateway.policies import Text
from banksman_gateway.shapes import Shape

router = APIRouter(prefix="/v1/policy", tags=["policy"], route_class=StrictRoute, responses=problems.ALSO)

MOST = 1000
"""How many requests one call of replay looks at."""
_AT_ONCE = 100
_EXAMPLES = 20

Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Rehearsed(Body):
    """A call to be judged. What the tool is like is taken from what the workers announced, unless it is said."""

    agent: Word
    tool: Word
    arguments: dict[str, Json] = Field(default_factory=dict[str, Json])
    requester: Annotated[str, Field(max_length=254)] = ""
    tags: Annotated[list[Word], Field(max_length=100)] = Field(default_factory=list[str])
    batch: Annotated[str, Field(max_length=100)] = ""
    flagged: Annotated[bool, Field(strict=True)] | None = None
    effects: Effects | None = None
    local: Annotated[bool, Field(strict=True)] | None = None
    policy: Text | None = Field(None, description="A candidate to judge by, in place of the policy in force.")


class Judged(Shape):
    """What a policy says of a call."""

    verdict: Literal["allow", "deny", "ask"]
    rule: str
    line: int | None
    because: str
    unclear: bool = Field(description="Whether the rule's condition could not be worked out.")
    requirement: Mapping[str, Any] | None
    policy: str


class Wanted(Body):
    """`since` is a duration like 30d; `policy` a candidate, in place of the policy in force."""

    since: Annotated[str, Field(max_length=20)] = "30d"
    policy: Text | None = None
    cursor: Annotated[str, Field(max_length=40)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST, strict=True)] = MOST


class Difference(Shape):
    """One past request where the policy and people, or the policy then and now, do not agree."""

    request_id: str
    run_id: str
    agent: str
    tool: str
    state: str
    verdict: str
    rule: str
    because: str


class Replay(Shape):
    """One page of a replay. Add the counts of all pages up.

    `verdicts` counts what the policy would say by what became of the request then: `{"allow": {"approved": 809,
    "denied": 3}}`. `asking` says how those that would be asked again would differ: `same`, `stricter` or `milder`.
    """

    policy: str
    examined: int
    verdicts: Mapping[str, Mapping[str, int]]
    asking: Mapping[str, int]
    rules: Mapping[str, int]
    unclear: int
    unreadable: int
    disagreements: int = Field(description="Allowed though people denied it, or denied though they approved it.")
    examples: list[Difference]
    next_cursor: str | None


@dataclass(slots=True)
class Tally:
    """What is counted on the way through the past."""

    examined: int = 0
    unclear: int = 0
    unreadable: int = 0
    disagreements: int = 0
    verdicts: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    asking: dict[str, int] = field(default_factory=dict[str, int])
    rules: dict[str, int] = field(default_factory=dict[str, int])
    examples: list[Difference] = field(default_factory=list[Difference])

    def count(self, past: Past, judged: Judgement) -> None:
        """One past request, and what would be said of it."""
        states = self.verdicts.setdefault(judged.verdict, {})
        states[past.state.value] = states.get(past.state.value, 0) + 1
        self.rules[judged.rule] = self.rules.get(judged.rule, 0) + 1
        self.unclear += judged.unclear
        if judged.requirement is not None:
            how = _how(judged.requirement, past.requirement)
            self.asking[how] = self.asking.get(how, 0) + 1
        if (judged.verdict, past.state) in _AT_ODDS:
            self.disagreements += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(_difference(past, judged))


_AT_ODDS = {("allow", RequestState.DENIED), ("deny", RequestState.APPROVED)}


@router.post("/simulate", response_model=Judged)
def simulate(said: Rehearsed, way: ToAct) -> Response:
    """What the policy in force, or a candidate, says of one call. Nothing is written and nobody is asked."""
    with way.enter() as (conn, caller):
        standing = _standing(conn, way.here, caller, said.policy)
        call = _call(conn, said)
    judged = judge(way.here, standing, call)
    rules = standing.rules.rules if standing.rules else ()
    shape = Judged(
        verdict=judged.verdict,
        rule=judged.rule,
        line=next((rule.line for rule in rules if rule.name == judged.rule), None),
        because=judged.because,
        unclear=judged.unclear,
        requirement=None if judged.requirement is None else judged.requirement.as_json(),
        policy=_name(standing),
    )
    return door.respond(200, door.to_bytes(shape))


@router.post("/replay", response_model=Replay)
def replay(said: Wanted, way: ToAct) -> Response:
    """What the policy in force, or an administrator's candidate, would have said of the calls that were asked since."""
    with way.enter() as (conn, caller):
        standing = _standing(conn, way.here, caller, said.policy)
        after = _after(conn, said)
        if said.policy is not None:
            _tell(conn, caller, said.policy, after)
    tally, cursor = over(way.here, standing, after, limit=said.limit)
    shape = Replay(
        policy=_name(standing),
        examined=tally.examined,
        verdicts=tally.verdicts,
        asking=tally.asking,
        rules=tally.rules,
        unclear=tally.unclear,
        unreadable=tally.unreadable,
        disagreements=tally.disagreements,
        examples=tally.examples,
        next_cursor=None if cursor is None else ids.show("req", cursor),
    )
    return door.respond(200, door.to_bytes(shape))


def over(here: Parts, standing: Standing, after: RequestId, *, limit: int) -> tuple[Tally, RequestId | None]:
    """The past from here on, so many requests of it, and where to go on."""
    tally = Tally()
    for past in _pages(here, after, limit):
        after = past.id
        tally.examined += 1
        call = past_call(past)
        if call is None:
            tally.unreadable += 1
        else:
            tally.count(past, judge(here, standing, call))
    return tally, after if tally.examined == limit else None


def judge(here: Parts, standing: Standing, call: Call) -> Judgement:
    """What a worker with these settings and rules would say."""
    return policy.judge(replace(standing_policy.of_settings(here.settings), rules=standing), call)


def _pages(here: Parts, after: RequestId, limit: int) -> Iterator[Past]:
    while limit > 0:
        wanted = min(limit, _AT_ONCE)
        with door.transaction(here) as conn, vault.leniently():
            found = rows.page(conn, after, limit=wanted)
        yield from found
        if len(found) < wanted:
            return
        limit, after = limit - wanted, found[-1].id


def _standing(conn: Connection, here: Parts, caller: Caller, text: str | None) -> Standing:
    policies.must_read(caller)
    if text is None:
        return policies.in_force(conn, here)[0]
    if caller.person is None:
        raise NotAllowed("A key rehearses the policy in force; a candidate is a person's to try.")
    rules = rule_file.read(text, "candidate")
    people = policies.in_force(conn, here)[0].people
    return Standing(replace(rules, version="candidate"), people=people)


def _tell(conn: Connection, caller: Caller, candidate: str, after: RequestId) -> None:
    if caller.person is None or "admin" not in caller.person.roles:
        raise NotAllowed("Only an administrator tries a candidate on past calls: its conditions see covered secrets.")
    body = {"sha256": sha256(candidate.encode()).hexdigest(), "after": ids.show("req", after)}
    audit.append(conn, Event(caller.actor, "policy.replayed", body=body))


def _name(standing: Standing) -> str:
    if standing.doubt is not None:
        return standing_policy.REFUSED
    return "default" if standing.rules is None else standing.rules.version


def _call(conn: Connection, said: Rehearsed) -> Call:
    listed = agents.find(conn, said.agent)
    known: Mapping[str, Json] = {} if listed is None else listed.tools
    tool = cast("Mapping[str, Json]", known.get(said.tool) or {})
    return Call(
        agent=said.agent,
        tool=said.tool,
        arguments=said.arguments,
        flagged=bool(tool.get("flagged")) if said.flagged is None else said.flagged,
        effects=said.effects or cast("Effects", tool.get("effects") or "unknown"),
        requester=said.requester,
        local=bool(tool.get("local")) if said.local is None else said.local,
        tags=said.tags,
        batch=said.batch,
    )


def past_call(past: Past) -> Call | None:
    """The call behind a past request, as the gate saw it; None where it cannot be read."""
    try:
        action = digest.parse(past.action, limit=4 * digest.MAX_BYTES)
        context = digest.parse(past.context, limit=digest.MAX_CONTEXT_BYTES)
        if vault.UNREAD in action:
            return None
        arguments = cast("Mapping[str, Json]", action["arguments"])
    except (InvalidInput, KeyError, TypeError):
        return None
    known = cast("Mapping[str, Json]", context.get("judged") or {})
    return Call(
        agent=past.agent,
        tool=past.tool,
        arguments=arguments,
        flagged=bool(known.get("flagged")),
        effects=known.get("effects") or "unknown",
        requester=past.requester,
        local=bool(known.get("local")),
        tags=past.tags,
        batch="" if past.batch_id is None else ids.show("bat", past.batch_id),
        files=cast("Mapping[str, Json]", context.get("files") or {}),
    )


def _after(conn: Connection, said: Wanted) -> RequestId:
    if said.cursor is not None:
        return RequestId(ids.read("req", said.cursor))
    return rows.since(conn, durations.read(said.since, most=rule_file.LONGEST))


def _how(today: Requirement, then: Requirement) -> str:
    if policy.stricter(today, then) is not None:
        return "stricter"
    return "milder" if policy.stricter(then, today) is not None else "same"


def _difference(past: Past, judged: Judgement) -> Difference:
    return Difference(
        request_id=ids.show("req", past.id),
        run_id=ids.show("run", past.run_id),
        agent=past.agent,
        tool=past.tool,
        state=past.state.value,
        verdict=judged.verdict,
        rule=judged.rule,
        because=judged.because,
    )
