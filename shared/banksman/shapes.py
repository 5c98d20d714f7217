"""What the gateway answers, as a program sees it: frozen, and tolerant of fields that a newer gateway adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Json = Any
T = TypeVar("T")

ENDS = frozenset({"finished", "failed", "cancelled", "stuck"})
"""Where a run goes no further by itself."""


class Shape(BaseModel):
    """Something that the gateway answered; fields that this release does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Run(Shape):
    """A run as it stood when it was read."""

    id: str
    agent: str
    status: str
    agent_version: str | None = None
    output: Json = None
    error: str | None = None
    requester: str = ""
    batch_id: str | None = None
    parent_id: str | None = None
    prompt: str = ""
    metadata: Mapping[str, Json] = Field(default_factory=dict[str, Json])
    tags: Sequence[str] = ()
    priority: int = 5
    usage: Mapping[str, Json] = Field(default_factory=dict[str, Json])
    cancel_requested: bool = False
    finish_by: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    erased_at: datetime | None = None
    """When its content was erased; ids, states and times stay."""

    @property
    def over(self) -> bool:
        """Whether it goes no further by itself."""
        return self.status in ENDS


class Batch(Shape):
    """Many runs submitted as one; `runs` says how many of them were in which state."""

    id: str
    name: str | None = None
    requester: str = ""
    total: int
    runs: Mapping[str, int]
    created_at: datetime
    paused_at: datetime | None = None
    cancelled_at: datetime | None = None
    finished_at: datetime | None = None
    waits_for: Sequence[str] = ()
    """Groups with as much to decide as they are to have: until that is less, no new run begins."""
    open_requests: int | None = None
    per_minute: float | None = None
    expected_at: datetime | None = None
    usage: Mapping[str, Json] = Field(default_factory=dict[str, Json])
    skipped: int = 0
    unlisted: int = 0
    errors: Sequence[Mapping[str, str]] = ()
    """What is wrong with the first lines that were skipped when it was submitted."""


class Agent(Shape):
    """An agent as the workers listed it last."""

    name: str
    version: str = ""
    tools: Mapping[str, Json] = Field(default_factory=dict[str, Json])
    seen_at: datetime | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None


class Policy(Shape):
    """A policy: the one in force, or a version of it. `problem` says why it cannot be used."""

    version: str
    source: str = ""
    number: int | None = None
    text: str | None = None
    sha256: str | None = None
    by: str | None = None
    at: datetime | None = None
    problem: str | None = None


class Judged(Shape):
    """What a policy says of a call."""

    verdict: str
    rule: str
    because: str
    policy: str = ""
    line: int | None = None
    unclear: bool = False
    requirement: Mapping[str, Json] | None = None


class Grant(Shape):
    """A standing grant: what must be equal for a call to be made again without asking, and how often it was."""

    id: str
    state: str
    owner: str
    agent: str
    agent_version: str | None = None
    tool: str
    request_id: str | None = None
    batch_id: str | None = None
    requester: str | None = None
    arguments: Mapping[str, Json] | None = None
    operands: Mapping[str, Json] | None = None
    free: Sequence[str] = ()
    most: int
    used: int
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


class Difference(Shape):
    """A past request where a policy would have said otherwise than people did."""

    request_id: str
    run_id: str
    agent: str
    tool: str
    state: str
    verdict: str
    rule: str
    because: str = ""


class Replay(Shape):
    """What a policy would have said of past requests, by what became of them then."""

    policy: str
    examined: int
    verdicts: Mapping[str, Mapping[str, int]] = Field(default_factory=dict[str, Mapping[str, int]])
    asking: Mapping[str, int] = Field(default_factory=dict[str, int])
    rules: Mapping[str, int] = Field(default_factory=dict[str, int])
    unclear: int = 0
    unreadable: int = 0
    disagreements: int = 0
    examples: Sequence[Difference] = ()
    next_cursor: str | None = None

    def __add__(self, later: Replay) -> Replay:
        """The page and the one after it as one."""
        states = {verdict: _sum(self.verdicts.get(verdict, {}), later.verdicts.get(verdict, {}))
                  for verdict in {**self.verdicts, **later.verdicts}}  # fmt: skip
        return later.model_copy(
            update={
                "examined": self.examined + later.examined,
                "verdicts": states,
                "asking": _sum(self.asking, later.asking),
                "rules": _sum(self.rules, later.rules),
                "unclear": self.unclear + later.unclear,
                "unreadable": self.unreadable + later.unreadable,
                "disagreements": self.disagreements + later.disagreements,
                "examples": [*self.examples, *later.examples][:MOST_EXAMPLES],
            }
        )


class Draft(Shape):
    """A rule drafted from like decisions in a row, and what it alone would have said of the last 30 days."""

    agent: str
    tool: str
    verdict: str
    decisions: int
    text: str
    examined: int = 0
    matched: int = 0
    disagreements: int = 0
    whole: bool = True


MOST_EXAMPLES = 20


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}


class Decision(Shape):
    """How people decided."""

    verdict: str
    revision: int
    by: Sequence[str] = ()
    decided_at: datetime | None = None
    start_by: datetime | None = None
    kid: str = ""
    signature: str = ""
    statement: str = ""
    statement_masked: bool = False
    """Whether secrets are covered in `statement`: the signature is over the text without masks."""


class Vote(Shape):
    """One person's say."""

    id: str
    verdict: str
    revision: int
    by: str
    channel: str = ""
    reason: str | None = None
    answer: Json = None
    at: datetime | None = None
    counts: bool = False
    void: str | None = None
    instead_of: Sequence[str] = ()


class Called(Shape):
    """Groups that the escalation ladder has called in, and since when."""

    groups: Sequence[str] = ()
    at: datetime | None = None


class Missing(Shape):
    """So many people more, of one of these groups."""

    count: int
    of: Sequence[str] = ()


class Quorum(Shape):
    """Who has agreed, what is missing (in words: `waits_for`), and who may say it."""

    agreed: Sequence[str] = ()
    missing: Sequence[Missing] = ()
    waits_for: str = ""
    may_decide: Sequence[str] = ()
    called: Sequence[Called] = ()


class Looking(Shape):
    """Somebody who looks at a request just now."""

    by: str
    until: datetime


class Remark(Shape):
    """What a person wrote below a request."""

    id: str
    by: str
    at: datetime
    text: str


class Absence(Shape):
    """Who is away, and who votes for their groups meanwhile."""

    id: str
    person: str
    stand_in: str
    from_at: datetime
    until_at: datetime
    ended_at: datetime | None = None
    live: bool = False


class Sibling(Shape):
    """Another request of the same pause."""

    id: str
    kind: str
    tool: str
    state: str


class Context(Shape):
    """What surrounds the action. `said` is the agent's own word and proves nothing."""

    said: str = ""
    tool_description: str = ""
    why_again: str | None = None
    before: Json = None
    options: Sequence[Json] | None = None


class Masked(Shape):
    """A secret that was covered where it is shown. Two of them with one fingerprint are the same."""

    where: str = ""
    what: str
    size: str
    fingerprint: str


class Revealed(Shape):
    """One secret of a request, as it is."""

    value: str = Field(repr=False)
    what: str
    fingerprint: str


class Request(Shape):
    """A request as it stood when it was read: `digest` and `revision` say what exactly was seen.

    In `arguments` and `rendered` secrets are covered; `masked` lists them.
    """

    id: str
    run_id: str
    kind: str
    state: str
    tool: str
    arguments: Json
    rendered: str
    masked: Sequence[Masked] = ()
    digest: str
    revision: int
    tier: str
    requirement: Mapping[str, Json] = Field(default_factory=dict[str, Json])
    expires_at: datetime
    decision: Decision | None = None
    quorum: Quorum = Quorum()
    looking: Sequence[Looking] = ()
    remarks: Sequence[Remark] = ()
    siblings: Sequence[Sibling] = ()
    agent: str = ""
    call_id: str = ""
    requester: str = ""
    created_at: datetime | None = None
    settled_at: datetime | None = None
    extended: int = 0
    audience: Sequence[str] = ()
    unreachable_since: datetime | None = None
    votes: Sequence[Vote] = ()
    context: Context = Context()


class File(Shape):
    """A file of a run's workspace."""

    path: str
    size: int = 0
    sha256: str = ""


class Moment(Shape):
    """One thing that happened to a run."""

    at: datetime
    who: str
    what: str
    request_id: str | None = None
    detail: Mapping[str, Json] = Field(default_factory=dict[str, Json])


class Notice(Shape):
    """One message to one person, and what became of it."""

    id: str
    kind: str
    to: str
    channel: str
    state: str
    request_id: str | None = None
    run_id: str | None = None
    attempts: int = 0
    last_error: str | None = None
    held: str | None = None
    due_at: datetime | None = None
    sent_at: datetime | None = None
    created_at: datetime | None = None


class Resent(Shape):
    """Notices that are due once more."""

    notices: Sequence[str]


class Endpoint(Shape):
    """Where webhooks go; `secret` is told once."""

    id: str
    url: str
    events: Sequence[str] = ()
    state: str = ""
    created_by: str = ""
    disabled_because: str | None = None
    failing_since: datetime | None = None
    rotating: bool = False
    dead: int = 0
    secret: str | None = Field(None, repr=False)


class Delivery(Shape):
    """One event to one endpoint."""

    id: str
    event: str
    state: str
    run_id: str | None = None
    request_id: str | None = None
    attempts: int = 0
    happened_at: datetime | None = None
    due_at: datetime | None = None
    sent_at: datetime | None = None
    last_error: str | None = None


class Redelivered(Shape):
    """How many webhooks are due once more."""

    deliveries: int


class Hearing(Shape):
    """How a person hears of things."""

    person: str
    email: bool
    apprise: Sequence[str] = ()
    quiet: Mapping[str, str] | None = None
    hold_high: bool = False
    gather_medium_minutes: float | None = None
    gather_low_minutes: float | None = None


class Attempt(Shape):
    """A mailed code that was asked for."""

    attempt: str = Field(repr=False)


class Token(Shape):
    """A personal token that was just made; its text is told once."""

    token: str = Field(repr=False)
    expires_at: datetime
    person: str


class Reviewer(Shape):
    """How one reviewer decides; times are in seconds, from the opening of a request to the vote."""

    person: str
    name: str = ""
    open: int = 0
    votes: int = 0
    approve_share: float | None = None
    median_seconds: float | None = None
    fast_streak: int = 0
    expired: int = 0


class Rule(Shape):
    """What one rule asked for, and what became of it."""

    policy: str
    rule: str
    opened: int
    states: Mapping[str, int]
    approve_share: float | None = None
    median_seconds: float | None = None


class Figures(Shape):
    """The figures of a span of time."""

    since: datetime
    until: datetime
    reviewers: Sequence[Reviewer]
    rules: Sequence[Rule]


class ReceiptItem(Shape):
    """One vote, and what it came to; `outcome` is None where the call has not run."""

    at: datetime
    verdict: str
    request_id: str
    state: str
    run_id: str
    run_status: str
    agent: str
    tool: str
    outcome: str | None = None


class Receipt(Shape):
    """What somebody's votes of one day came to."""

    person: str
    since: datetime
    until: datetime
    figures: Reviewer
    items: Sequence[ReceiptItem]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list; `next_cursor` asks for the one after, and is None on the last."""

    items: tuple[T, ...]
    next_cursor: str | None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> T:
        return self.items[index]
