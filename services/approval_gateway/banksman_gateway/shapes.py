"""The JSON that the API speaks: outside programs rely on these names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from banksman import diffs, ids, masks, quorum, records, render
from banksman.blocks import Block
from banksman.digest import Json
from banksman.ledger.progress import Pace, Used
from banksman.ledger.views import Around, Happening
from banksman.masks import Cover, Secret
from banksman.sealing.heads import Head
from banksman.signing import base64url
from banksman_gateway.tally import Tally

T = TypeVar("T")


class Shape(BaseModel):
    """Made here from records, never read from outside."""

    model_config = ConfigDict(frozen=True)


class Page(Shape, Generic[T]):
    """One page of a list; `next_cursor` asks for the one after, and is null on the last."""

    items: Sequence[T]
    next_cursor: str | None = None


class Run(Shape):
    """A run as it stands."""

    id: str = Field(examples=["run_0192f0c1a2b37c4d8e5f60718293a4b5"])
    agent: str
    agent_version: str | None
    status: str
    output: Any
    error: str | None
    requester: str
    batch_id: str | None
    parent_id: str | None
    """The run that delegated to this one."""
    prompt: str
    metadata: Mapping[str, Any]
    tags: Sequence[str]
    priority: int
    usage: Mapping[str, Any]
    cancel_requested: bool
    finish_by: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    erased_at: datetime | None
    """When its content was erased; ids, states and times stay."""


class Batch(Shape):
    """Many runs submitted as one; `runs` says how many of them are in which state."""

    id: str = Field(examples=["bat_0192f0c1a2b37c4d8e5f60718293a4b5"])
    name: str | None
    requester: str
    total: int
    runs: Mapping[str, int]
    created_at: datetime
    paused_at: datetime | None
    cancelled_at: datetime | None
    finished_at: datetime | None
    waits_for: Sequence[str] = Field(description="Groups with as much to decide as they are to have.")


class BatchNow(Batch):
    """A batch with what its runs, and those that they delegated to, came to so far. `expected_at` is when the last will
    have ended at the pace of the last ten minutes.
    """

    open_requests: int
    per_minute: float
    expected_at: datetime | None
    usage: Mapping[str, Any]


class Fault(Shape):
    """What is wrong with a line, or with one field of it."""

    field: str = Field(examples=["line 7.agent"])
    message: str


class Submitted(Batch):
    """A batch as it was accepted. What is wrong with the first 100 lines that were `skipped` is in `errors`; so many
    more as `unlisted` says were faulty too.
    """

    skipped: int = 0
    unlisted: int = 0
    errors: Sequence[Fault] = ()


class Agent(Shape):
    """An agent as the workers listed it last. While it is paused, none of its runs starts or resumes."""

    name: str
    version: str
    tools: Mapping[str, Any] = Field(
        description="With what the policy in force makes of each, for whoever may read it."
    )
    seen_at: datetime
    paused_at: datetime | None
    paused_by: str | None


class Sibling(Shape):
    """Another request of the same pause: the run resumes when all are settled."""

    id: str
    kind: str
    tool: str
    state: str


class Vote(Shape):
    """One person's say (or, on external work, one API key's)."""

    id: str
    verdict: str
    revision: int
    by: str
    channel: str
    reason: str | None
    answer: Any
    at: datetime | None
    counts: bool = Field(description="Whether it counts: towards the quorum, or, once decided, in the decision.")
    void: str | None = Field(description="Why it does not count, if something took it away.")
    instead_of: Sequence[str] = Field(description="Who is away while this person votes for their groups.")


class Missing(Shape):
    """So many people more, of one of these groups (of anybody who may decide, where none is named)."""

    count: int
    of: Sequence[str]


class Called(Shape):
    """Groups that the escalation ladder has called in, and since when."""

    groups: Sequence[str]
    at: datetime


class Quorum(Shape):
    """Who has agreed to what is asked now, what is missing, and who may say it."""

    agreed: Sequence[str]
    missing: Sequence[Missing]
    waits_for: str
    """What is missing, in words."""
    may_decide: Sequence[str]
    called: Sequence[Called]


class Looking(Shape):
    """Somebody who looks at the request just now. It keeps nobody from voting."""

    by: str
    until: datetime


class Remark(Shape):
    """What a person wrote below the request. No part of what is decided."""

    id: str
    by: str
    at: datetime
    text: str


class Decision(Shape):
    """How people decided, as the gateway signed it (Ed25519 over a domain prefix and the statement's bytes)."""

    verdict: str
    revision: int
    by: Sequence[str]
    decided_at: datetime | None
    start_by: datetime
    kid: str
    signature: str
    statement: str
    statement_masked: bool
    """Whether secrets are covered in it, so that the signature does not verify over this text."""


class Change(Shape):
    """One argument that somebody changed, as people are shown it: each line begins with a blank, - or +."""

    argument: str
    lines: Sequence[str]


class Revision(Shape):
    """One exact version of what was asked; `by` is null for the agent's own."""

    revision: int
    by: str | None
    digest: str
    arguments: Any
    changes: Sequence[Change]
    """What it changed of the one before."""


class Context(Shape):
    """What surrounds the action, for the reviewer. `said` is the agent's own word and proves nothing."""

    said: str
    tool_description: str
    why_again: str | None
    before: Any
    options: Sequence[Any] | None


class AuditHead(Shape):
    """The audit log's newest head: so many events, this root (RFC 9162). A log that was rolled back lacks it."""

    number: int
    size: int
    root: str
    at: datetime


class Masked(Shape):
    """A secret that is covered where it is shown. Two of them with one fingerprint are the same."""

    where: str
    what: str
    size: str
    fingerprint: str


class Request(Shape):
    """A request as it stands, with what its digest covers; in `arguments` secrets are covered."""

    id: str
    run_id: str
    kind: str
    state: str
    agent: str
    tool: str
    call_id: str
    arguments: Any
    rendered: str
    masked: Sequence[Masked]
    """The secrets that are covered in `arguments` and `rendered`."""
    digest: str
    revision: int
    tier: str
    requirement: Mapping[str, Any]
    requester: str
    created_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    extended: int
    """How often the deadline has moved on because nobody decided."""
    audience: Sequence[str]
    """The groups whose members may vote by now."""
    unreachable_since: datetime | None
    """Since when nobody, or too few people, may decide it: somebody must be given the role or group it names."""
    decision: Decision | None
    votes: Sequence[Vote]
    quorum: Quorum
    looking: Sequence[Looking]
    remarks: Sequence[Remark]
    siblings: Sequence[Sibling]
    revisions: Sequence[Revision]
    context: Context
    audit_head: AuditHead | None = None


class File(Shape):
    """A file of a run's workspace, as of its last snapshot."""

    path: str
    size: int
    sha256: str


class Absence(Shape):
    """Who is away, and who votes for their groups meanwhile."""

    id: str = Field(examples=["abs_0192f0c1a2b37c4d8e5f60718293a4b5"])
    person: str
    stand_in: str
    from_at: datetime
    until_at: datetime
    ended_at: datetime | None
    live: bool


class Moment(Shape):
    """One thing that happened to a run."""

    at: datetime
    who: str
    what: str
    request_id: str | None
    detail: Mapping[str, Any]


class Problem(Shape):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:banksman:problem:changed"])
    title: str
    status: int
    detail: str
    current: Mapping[str, Any] | None = Field(
        None, description="On a conflict: who or what came first, or what is asked now."
    )
    errors: Sequence[Mapping[str, str]] | None = Field(None, description="What is wrong with each field.")


class Row(Shape):
    """How one of many votes went: the request after it, or the problem."""

    request_id: str
    status: int
    request: Request | None = None
    problem: Mapping[str, Any] | None = None


def run(found: records.Run) -> Run:
    """A run's shape."""
    return Run(
        id=ids.show("run", found.id),
        agent=found.agent,
        agent_version=found.agent_version,
        status=found.status.value,
        output=found.output,
        error=found.error,
        requester=found.requester,
        parent_id=None if found.parent_id is None else ids.show("run", found.parent_id),
        batch_id=None if found.batch_id is None else ids.show("bat", found.batch_id),
        prompt=found.prompt,
        metadata=found.metadata,
        tags=found.tags,
        priority=found.priority,
        usage=found.usage,
        cancel_requested=found.cancel_at is not None,
        finish_by=found.finish_by,
        created_at=found.created_at,
        started_at=found.started_at,
        finished_at=found.finished_at,
        erased_at=found.erased_at,
    )


def batch(found: records.Batch) -> Batch:
    """A batch's shape."""
    return Batch(**_batch(found))


def batch_now(found: records.Batch, pace: Pace, waiting: int, used: Used) -> BatchNow:
    """The shape of a batch with its progress."""
    return BatchNow(
        **_batch(found),
        open_requests=waiting,
        per_minute=round(pace.per_minute, 2),
        expected_at=pace.until(found.left) if found.left else None,
        usage={
            "requests": used.requests,
            "input_tokens": used.tokens_in,
            "output_tokens": used.tokens_out,
            "tool_calls": used.tool_calls,
            "cost": None if used.cost is None else str(used.cost),
        },
    )


def submitted(found: records.Batch, wrong: Sequence[Mapping[str, Any]], *, skipped: int, listed: int) -> Submitted:
    """The shape of a batch that was just accepted, and of what was not accepted with it."""
    faults = [
        Fault(field=".".join(map(str, item["loc"])), message=str(item["msg"]).removeprefix("Value error, "))
        for item in wrong
    ]
    return Submitted(**_batch(found), skipped=skipped, unlisted=skipped - listed, errors=faults)


def _batch(found: records.Batch) -> dict[str, Any]:
    return {
        "id": ids.show("bat", found.id),
        "name": found.name,
        "requester": found.requester,
        "total": sum(found.runs.values()),
        "runs": {status.value: count for status, count in found.runs.items()},
        "created_at": found.created_at,
        "paused_at": found.paused_at,
        "cancelled_at": found.cancelled_at,
        "waits_for": found.waits_for,
        "finished_at": found.finished_at,
    }


def agent(found: records.Agent, tools: Mapping[str, Any]) -> Agent:
    """An agent's shape, with its tools as they are to be shown."""
    return Agent(
        name=found.name,
        version=found.version,
        tools=tools,
        seen_at=found.seen_at,
        paused_at=found.paused_at,
        paused_by=found.paused_by,
    )


def audit_head(head: Head | None) -> AuditHead | None:
    """A head's shape."""
    return None if head is None else AuditHead.model_validate(head.short())


def turn_cover(found: records.Request, around: Around) -> Cover:
    """What covers the words around a request: they are those of its turn, whose requests have one cover."""
    return masks.around(_read(found.action), *(_read(other.action) for other in around.siblings))


def request(found: records.Request, around: Around, stands: Tally, head: Head | None, around_it: Cover) -> Request:
    """A request's shape. What is shown comes from the very bytes that were hashed."""
    action = _read(found.action)
    context = _read(found.context)
    cover = masks.of(action)
    rendering = render.of(action, context)
    before = context.get("before")
    return Request(
        id=ids.show("req", found.id),
        run_id=ids.show("run", found.run_id),
        kind=found.kind.value,
        state=found.state.value,
        agent=found.agent,
        tool=found.tool,
        call_id=found.call_id,
        arguments=masks.plain(cover.value(action.get("arguments"))),
        rendered=rendering.text,
        masked=[_masked(secret) for secret in rendering.secrets],
        digest=found.digest.hex(),
        revision=found.revision,
        tier=found.tier.value,
        requirement=found.requirement.as_json(),
        requester=found.requester,
        created_at=found.created_at,
        expires_at=found.expires_at,
        settled_at=found.settled_at,
        extended=found.extended,
        audience=sorted(quorum.audience(found.requirement, found.age)),
        unreachable_since=found.unreachable_at,
        decision=_decision(around, stands, action),
        votes=[_vote(vote, by, stands) for vote, by in around.votes],
        quorum=_quorum(around, stands),
        looking=[Looking(by=item.name, until=item.until) for item in around.company.looking],
        remarks=[
            Remark(id=ids.show("rmk", item.id), by=item.by, at=item.created_at, text=item.text)
            for item in around.company.remarks
        ],
        siblings=[
            Sibling(id=ids.show("req", other.id), kind=other.kind.value, tool=other.tool, state=other.state.value)
            for other in around.siblings
        ],
        revisions=_revisions(around),
        context=Context(
            said=masks.plain(around_it.text(str(context.get("said") or ""))),
            tool_description=str(context.get("tool_description") or ""),
            why_again=masks.plain(around_it.text(context["why_again"])) if context.get("why_again") else None,
            before=masks.plain(masks.snapshot(before, cover)) if before else None,
            options=masks.plain(cover.value(context.get("options"))),
        ),
        audit_head=audit_head(head),
    )


def absence(found: records.Absence) -> Absence:
    """An absence's shape."""
    return Absence(
        id=ids.show("abs", found.id),
        person=found.person.email,
        stand_in=found.stand_in.email,
        from_at=found.from_at,
        until_at=found.until_at,
        ended_at=found.ended_at,
        live=found.live,
    )


def moment(found: Happening) -> Moment:
    """A moment's shape."""
    return Moment(
        at=found.at,
        who=found.who,
        what=found.what,
        request_id=None if found.request_id is None else ids.show("req", found.request_id),
        detail=found.detail,
    )


def _revisions(around: Around) -> Sequence[Revision]:
    found: list[Revision] = []
    before: Json = None
    for old in around.revisions:
        action = _read(old.action)
        cover = masks.of(action)
        now = cover.value(action.get("arguments") or {})
        blocks = () if before is None else diffs.edited(before, now)
        found.append(
            Revision(
                revision=old.revision,
                by=old.by,
                digest=old.digest.hex(),
                arguments=masks.plain(now),
                changes=[_change(block) for block in blocks],
            )
        )
        before = now
    return found


def _change(block: Block) -> Change:
    return Change(argument=block.label, lines=[line.mark + line.text for line in block.lines])


def _masked(secret: Secret) -> Masked:
    return Masked(where=secret.where, what=secret.what, size=secret.size, fingerprint=secret.fingerprint)


def _decision(around: Around, stands: Tally, action: Mapping[str, Json]) -> Decision | None:
    found = around.decision
    if found is None:
        return None
    signed = _read(found.signed.statement)
    shown = masks.plain(masks.snapshot(signed, masks.of(action)))
    return Decision(
        verdict=found.verdict.value,
        revision=found.revision,
        by=[by for vote, by in around.votes if vote.id in stands.agreed],
        decided_at=found.created_at,
        start_by=found.start_by,
        kid=found.signed.kid,
        signature=base64url(found.signed.signature),
        statement=found.signed.statement.decode() if shown == signed else json.dumps(shown, ensure_ascii=False),
        statement_masked=shown != signed,
    )


def _quorum(around: Around, stands: Tally) -> Quorum:
    return Quorum(
        agreed=[by for vote, by in around.votes if vote.id in stands.agreed],
        missing=[Missing(count=item.count, of=item.of) for item in stands.missing],
        waits_for=stands.waits_for,
        may_decide=stands.may_decide,
        called=[Called(groups=item.groups, at=item.since) for item in stands.called],
    )


def _vote(vote: records.Vote, by: str, stands: Tally) -> Vote:
    return Vote(
        id=ids.show("vot", vote.id),
        verdict=vote.verdict.value,
        revision=vote.revision,
        by=by,
        channel=vote.channel,
        reason=vote.reason,
        answer=vote.answer,
        at=vote.created_at,
        counts=vote.id in stands.agreed,
        void=stands.void.get(vote.id),
        instead_of=stands.instead_of.get(vote.id, ()),
    )


def _read(stored: bytes) -> dict[str, Json]:
    """Stored JSON was read strictly on its way in."""
    return cast("dict[str, Json]", json.loads(stored))
