"""What the ledger hands out: frozen records, one for each kind of row, with content already opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from uuid import UUID

from banksman.digest import Json
from banksman.ids import (
    AbsenceId,
    BatchId,
    DeliveryId,
    EndpointId,
    GrantId,
    KeyId,
    NoticeId,
    PersonId,
    RemarkId,
    RequestId,
    RunId,
    VoteId,
)
from banksman.signing import Signed
from banksman.states import FINAL, Kind, NoticeState, RequestState, RunStatus, Tier, Verdict


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the escalation ladder: so many seconds after the opening these groups are told, and may vote."""

    after: int
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """Who must agree, how many, at which tier, until when: frozen when a request opens, and part of its digest.

    `approvals` counts distinct people in all, `groups` how many at least of each group; `quorum` says who that is.
    `expires_after` and `reminders` are in seconds from the opening. `policy` and `rule` name what held the call,
    `because` says it to the reviewer. `on_expiry` is what silence means: `deny` (the call is not made, the run goes
    on), `stop` (the run ends) or `extend` (it goes on waiting, as long again).
    """

    tier: Tier = Tier.MEDIUM
    approvals: int = 1
    groups: Mapping[str, int] = field(default_factory=dict[str, int])
    policy: str = "default"
    rule: str = "default"
    because: str = ""
    expires_after: int = 72 * 3600
    on_expiry: str = "deny"
    reminders: tuple[int, ...] = ()
    escalation: tuple[Rung, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """The form that is hashed, signed and stored."""
        return {
            "approvals": self.approvals,
            "because": self.because,
            "escalation": [{"after": rung.after, "groups": list(rung.groups)} for rung in self.escalation],
            "expires_after": self.expires_after,
            "groups": dict(self.groups),
            "on_expiry": self.on_expiry,
            "policy": self.policy,
            "reminders": list(self.reminders),
            "rule": self.rule,
            "tier": self.tier.value,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Requirement:
        """From the stored form."""
        return cls(
            tier=Tier(value["tier"]),
            approvals=int(value["approvals"]),
            groups=dict(value["groups"]),
            policy=str(value["policy"]),
            rule=str(value["rule"]),
            because=str(value["because"]),
            expires_after=int(value["expires_after"]),
            on_expiry=str(value["on_expiry"]),
            reminders=tuple(value["reminders"]),
            escalation=tuple(Rung(rung["after"], tuple(rung["groups"])) for rung in value["escalation"]),
        )


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as it is submitted."""

    id: RunId
    agent: str
    prompt: str
    requester: str
    requester_id: PersonId | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict[str, Json])
    tags: Sequence[str] = ()
    priority: int = 5
    finish_by: datetime | None = None
    key: str | None = None
    """What the caller calls it, among the runs of a batch."""
    line: int | None = None
    """The line of the batch that it came on, from 1."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands."""

    id: RunId
    agent: str
    agent_version: str | None
    status: RunStatus
    segment: int
    attempts: int
    requester: str
    requester_id: PersonId | None
    batch_id: UUID | None
    parent_id: RunId | None
    tags: Sequence[str]
    priority: int
    prompt: str
    metadata: Mapping[str, Json]
    output: Json
    error: str | None
    usage: Mapping[str, Json]
    cancel_at: datetime | None
    finish_by: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    erased_at: datetime | None = None
    """When its content was erased: only ids, states and times are left."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most so many runs of these agents together are under way at once."""

    name: str
    agents: Sequence[str]
    most: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A segment that this worker holds until its lease ends; `fence` tells its writes from every other attempt's."""

    run_id: RunId
    segment: int
    fence: int
    attempts: int
    agent: str
    prompt: bytes = field(repr=False)
    """Sealed still: one that does not open fails the run, and not the claim."""
    requester: str
    requester_id: PersonId | None
    usage: Mapping[str, Json]
    parent_id: RunId | None = None
    delegated: bool = False
    """Whether the run waited for children before this segment."""
    batch_id: UUID | None = None
    tags: Sequence[str] = ()
    fresh: bool = False
    """Whether nobody has ever claimed the run before, so that nothing is stored behind it."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """A task for another agent, about to become a child run."""

    child_id: RunId
    agent: str
    prompt: str
    step: int
    call_id: str


@dataclass(frozen=True, slots=True)
class Child:
    """A run that another one delegated to, and what came of it."""

    run_id: RunId
    step: int
    call_id: str
    agent: str
    status: RunStatus
    output: Json
    error: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """A run that the dispatcher found due; `status` is stuck when its attempts are used up."""

    run_id: RunId
    segment: int
    status: RunStatus


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One step of a conversation: how many messages of the earlier ones stay, the new ones, and the run's state."""

    seq: int
    segment: int
    kept: int
    messages: bytes
    state: bytes


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request as the worker opens it, with its first revision and the notices it sends."""

    id: RequestId
    step: int
    call_id: str
    kind: Kind
    agent: str
    tool: str
    requirement: Requirement
    action: bytes
    digest: bytes
    schema: bytes
    schema_hash: bytes
    shape: bytes
    context: bytes
    notify: Sequence[tuple[NoticeId, PersonId]] = ()
    reachable: bool = True
    """Whether those who may decide now are enough; if not, the gateway looks at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it stands, with its current revision."""

    id: RequestId
    run_id: RunId
    segment: int
    step: int
    call_id: str
    kind: Kind
    state: RequestState
    agent: str
    tool: str
    tier: Tier
    requirement: Requirement
    revision: int
    action: bytes
    digest: bytes
    author_id: PersonId | None
    schema_hash: bytes
    context: bytes
    requester: str
    requester_id: PersonId | None
    expires_at: datetime
    created_at: datetime
    settled_at: datetime | None
    extended: int
    """How often its deadline has moved on."""
    unreachable_at: datetime | None
    """Since when nobody, or too few, may decide it, as the gateway found."""
    overdue: bool
    """Whether its deadline has passed for good, by the database's clock."""
    age: timedelta
    """How long it has been open, by the same clock."""

    def asked_by(self, person: Person) -> bool:
        """Whether the run is this person's."""
        return person.id == self.requester_id or person.email.casefold() == self.requester.casefold()


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's say on a revision (or, on external work, one API key's)."""

    id: VoteId
    request_id: RequestId
    revision: int
    digest: bytes
    verdict: Verdict
    channel: str
    person_id: PersonId | None = None
    key_id: KeyId | None = None
    reason: str | None = None
    answer: Json = None
    render_hash: bytes | None = None
    mac: str = ""
    created_at: datetime | None = None
    replaces: VoteId | None = None
    """The vote of the same person that was taken back before this one."""
    withdrawals: Mapping[str, str] = field(default_factory=dict[str, str])
    """The mark on each row that says it was taken back, and when: whether one holds, `decide` says."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A request's outcome as people reached it, signed by the gateway."""

    request_id: RequestId
    revision: int
    verdict: RequestState
    signed: Signed
    start_by: datetime
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """How one call that a run waited for came out; without a decision it was the system's doing."""

    request_id: RequestId
    step: int
    call_id: str
    tool: str
    kind: Kind
    state: RequestState
    on_expiry: str
    action: bytes
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A standing grant as it is stored: beside its statement, of the row only the moves of its life count."""

    id: GrantId
    signed: Signed
    agent: str
    tool: str
    owner_id: PersonId
    owner: str
    used: int
    most: int
    created_at: datetime
    expires_at: datetime
    expired: bool
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Grant:
    """A standing grant whose signature holds; everything here was signed. `bound` is what must be the same again."""

    id: GrantId
    owner_id: PersonId
    owner: str
    requirement: Requirement
    bound: Mapping[str, Json]
    free: frozenset[str]
    most: int
    expires_at: datetime
    signature: bytes
    sensitive: Sequence[str] = ()
    """The arguments that are secret."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One journaled tool call."""

    step: int
    call_id: str
    attempt: int
    tool: str
    digest: bytes
    fence: int
    state: str
    outcome: str | None
    result: bytes | None
    request_id: RequestId | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one reviewer."""

    id: NoticeId
    kind: str
    person_id: PersonId
    request_id: RequestId | None
    revision: int | None
    channel: str
    state: NoticeState
    attempts: int
    code_tries: int
    used_at: datetime | None
    expires_at: datetime
    live: bool
    """Whether its link and code still count, by the database's clock."""


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """Votes of one day that came to the same: what was said, of which tool, and what became of the calls."""

    count: int
    verdict: Verdict
    tool: str
    agent: str
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Matter:
    """What a notice is about, as far as a message may tell it: never arguments."""

    notice_id: NoticeId
    email: str
    wanted: bool
    """Whether the message still has a reader: the person in good standing, the code or the request still open."""
    created_at: datetime
    expires_at: datetime
    request_id: RequestId | None = None
    run_id: RunId | None = None
    kind: Kind | None = None
    agent: str = ""
    tool: str = ""
    requirement: Requirement | None = None
    requester: str = ""
    thread: NoticeId | None = None
    """The first notice to this person about this request: later mails are answers to its mail."""
    receipt: Sequence[ReceiptLine] = ()
    """Of a receipt: what it says."""
    audit_head: str = ""
    """Of a receipt: the audit log's newest head, in a line."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What gathering must know of a notice that was just claimed, beside its matter."""

    tier: Tier | None
    held: bool
    """Whether it waited for a summary."""
    tried: bool
    """Whether it was sent before, in vain: its turn had come."""
    told: int
    """Messages of the last day to this person about requests of this run that are still open."""
    thread: NoticeId | None
    """The first notice to this person about this request."""


@dataclass(frozen=True, slots=True)
class Line:
    """Requests that a summary tells in one line."""

    batch_id: BatchId | None
    batch: str | None
    agent: str
    tool: str
    kind: Kind
    tier: Tier
    remark: bool
    """Whether it is about what somebody asked or answered there."""
    count: int
    expires_at: datetime
    """The first deadline among them."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """The hours of the day in which somebody is left in peace, by the clock on their wall."""

    begins: time
    ends: time
    zone: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """How a person wants to be told; what is None is as the notifier is set up."""

    email: bool = True
    urls: tuple[str, ...] = field(default=(), repr=False)
    """Apprise's addresses of other services; they hold secrets."""
    quiet: Quiet | None = None
    hold_high: bool = False
    """Whether quiet hours hold tier high, too."""
    gather_medium: timedelta | None = None
    gather_low: timedelta | None = None

    @property
    def channel(self) -> str:
        """The ways out, as a notice's row names them."""
        return ",".join([*(["email"] if self.email else []), *(["apprise"] if self.urls else [])])


@dataclass(frozen=True, slots=True)
class Told:
    """A notice as people see it: `held` and `failed` are states, too."""

    id: NoticeId
    kind: str
    person_id: PersonId
    to: str
    channel: str
    request_id: RequestId | None
    run_id: RunId | None
    state: str
    attempts: int
    last_error: str | None
    held: str | None
    due_at: datetime | None
    sent_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where webhooks go."""

    id: EndpointId
    url: str = field(repr=False)
    events: Sequence[str]
    created_by: str
    created_at: datetime
    disabled_at: datetime | None
    disabled_because: str | None
    failing_since: datetime | None
    rotating: bool
    """Whether an old secret signs, too."""
    dead: int
    """Deliveries that were given up."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to one endpoint, and what became of it."""

    id: DeliveryId
    event: str
    run_id: RunId | None
    request_id: RequestId | None
    happened_at: datetime
    state: str
    attempts: int
    due_at: datetime | None
    sent_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Parcel:
    """A delivery that was claimed, with what it takes to send it."""

    id: DeliveryId
    endpoint_id: EndpointId
    fence: int
    attempts: int
    event: str
    happened_at: datetime
    run_id: RunId | None
    request_id: RequestId | None
    batch_id: BatchId | None
    url: str = field(repr=False)
    """Empty where the endpoint cannot be read."""
    secrets: tuple[str, ...] = field(repr=False)
    """The newest first."""
    left: timedelta
    """Until it is given up."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in."""

    id: PersonId
    email: str
    name: str
    roles: frozenset[str]
    groups: frozenset[str]
    disabled: bool
    fresh: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict[str, "tuple[datetime, datetime]"])
    """Groups given lately (`reviewers` and `admins` too): when, and when they count for what was asked before."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Who is away, from when until when, and who decides meanwhile; `ended_at` when it was called off."""

    id: AbsenceId
    person: Person
    stand_in: Person
    from_at: datetime
    until_at: datetime
    ended_at: datetime | None
    live: bool
    """Whether it counts at this moment, by the database's clock."""


@dataclass(frozen=True, slots=True)
class Looking:
    """Somebody who has a request open before them, until when if they do not go on."""

    person_id: PersonId
    name: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person wrote below a request, to be read by people."""

    id: RemarkId
    request_id: RequestId
    by: str
    text: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Key:
    """An API key or a personal token whose secret has just been checked."""

    id: KeyId
    kind: str
    name: str
    scopes: frozenset[str]
    person: Person | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key or a personal token as it is kept: all of it but the secret. `owner` is a person's address."""

    id: KeyId
    kind: str
    name: str
    scopes: frozenset[str]
    owner: str | None
    live: bool
    """Whether it still opens anything, by the database's clock."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A browser session as it is kept."""

    id_hash: bytes
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """Many runs submitted as one, and how many of them are where."""

    id: BatchId
    name: str | None
    requester: str
    requester_id: PersonId | None
    created_at: datetime
    cancelled_at: datetime | None
    runs: Mapping[RunStatus, int]
    finished_at: datetime | None
    """When the last of its runs was over; None while one is not."""
    paused_at: datetime | None = None
    waits_for: Sequence[str] = ()
    """Groups that have as much to decide as they are to have: until that is less, no run of it begins."""

    @property
    def left(self) -> int:
        """How many of its runs are to come to an end by themselves: a stuck one waits for somebody to act."""
        return sum(count for status, count in self.runs.items() if status not in FINAL | {RunStatus.STUCK})


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as the workers listed it last, and whether somebody has paused it."""

    name: str
    version: str
    tools: Mapping[str, Json]
    seen_at: datetime
    paused_at: datetime | None
    paused_by: str | None
    """The address of whoever paused it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log. The body holds ids, hashes and numbers, never content."""

    actor: str
    action: str
    run_id: RunId | None = None
    request_id: RequestId | None = None
    body: Mapping[str, Json] = field(default_factory=dict[str, Json])
    at: datetime | None = None
    cursor: tuple[int, int] | None = None
