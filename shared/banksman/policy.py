"""Policy: for each tool call, whether it is allowed, denied or asked, and by whom it may be decided."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Literal, Protocol

from banksman import quorum, suspicion
from banksman.digest import Json
from banksman.records import Grant, Requirement, Rung
from banksman.states import Tier

Effects = Literal["unknown", "harmless", "workspace", "idempotent"]
"""What a tool's author, or we for known built-ins, say that it does to the world."""

WRITERS = frozenset({"write_file"})
TOO_SHORT = 3600
"""A request that is over within so many seconds is not worth a reminder."""

_RANK = {tier: rank for rank, tier in enumerate(Tier)}


@dataclass(frozen=True)
class Call:
    """A tool call as policy sees it: validated arguments, and what is known of the tool."""

    agent: str
    tool: str
    arguments: Mapping[str, Json]
    flagged: bool = False
    """Whether the author wants it asked (`requires_approval`, `interrupt_on`, `ApprovalRequired`)."""
    effects: Effects = "unknown"
    requester: str = ""
    local: bool = False
    """Whether it is one of our own tools on the run's own workspace, and not an author's of the same name."""
    tags: Sequence[str] = ()
    batch: str = ""
    """The id of the batch that its run came in, as it is shown; empty for a run of its own."""
    run: str = ""
    agent_version: str = ""
    schema: str = ""
    """The hash of the tool's schema."""
    operands: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """The hashes of the files that it names."""
    files: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """What stands in them, as far as its reviewer is shown it."""

    @cached_property
    def signs(self) -> Sequence[suspicion.Sign]:
        """What in its arguments could deceive: read once, however many rules ask."""
        return suspicion.signs(self.arguments)

    @property
    def hides(self) -> bool:
        """Whether something in its arguments would not be seen in plain text. No rule allows such a call."""
        return any(sign.hides for sign in self.signs)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What policy says of one call, and which rule said so."""

    verdict: Literal["allow", "deny", "ask"]
    rule: str
    because: str
    requirement: Requirement | None = None
    unclear: bool = False
    """Whether it was asked because the rule's condition could not be worked out."""
    grant: Grant | None = None
    """What lets the call through though it is asked otherwise; `requirement` is what would be asked."""


class Rules(Protocol):
    """Rules that come before what the settings say: a file, or what an administrator uploaded."""

    def judge(self, call: Call, otherwise: Judgement) -> Judgement:
        """What the rules say of a call; `otherwise` is what would be said without them."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force: the settings of the process, and above them the rules, if there are any.

    `allow_tools` are names with `*`; writes below `allow_writes_below` need nobody.
    """

    allow_tools: Sequence[str] = ()
    allow_writes_below: Sequence[str] = ()
    tier: Tier = Tier.MEDIUM
    expires_after: int = 72 * 3600
    tiers: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    rules: Rules | None = None


def judge(policy: Policy, call: Call) -> Judgement:
    """Allow, deny or ask: the one question that the gate puts."""
    otherwise = _by_settings(policy, call)
    return otherwise if policy.rules is None else policy.rules.judge(call, otherwise)


def ladder(expires_after: int) -> tuple[tuple[int, ...], tuple[Rung, ...]]:
    """What keeps a request from being forgotten where nobody said otherwise: a reminder at half of its time, and the
    administrators at three quarters.
    """
    if expires_after < TOO_SHORT:
        return (), ()
    return (expires_after // 2,), (Rung(expires_after * 3 // 4, (quorum.ADMINS,)),)


def _by_settings(policy: Policy, call: Call) -> Judgement:
    below = _write_below(policy, call)
    if below is not None:
        return Judgement("allow", "writes-below", f"Files below {below} may be written without asking.")
    for pattern in () if call.hides else policy.allow_tools:
        if fnmatch.fnmatchcase(call.tool, pattern):
            return Judgement("allow", "allow-tools", f"The tool {pattern} is allowed.")
    if call.flagged:
        return _ask(policy, call, "flagged", "The agent's author wants a person to agree to every call of this tool.")
    if call.effects == "harmless":
        return Judgement("allow", "harmless", "The tool has no effect outside the run's own workspace.")
    if call.effects == "workspace":
        return _ask(policy, call, "changes-files", "The tool changes the run's files, and no rule allows that here.")
    return _ask(policy, call, "unknown-effects", "Nobody has said what this tool can do, so a person must agree.")


def stricter(today: Requirement, then: Requirement) -> str | None:
    """What today's requirement asks beyond the one that a decision met; None when the decision would do today."""
    if _RANK[today.tier] > _RANK[then.tier]:
        return f"tier {today.tier.value} instead of {then.tier.value}"
    if today.approvals > then.approvals:
        return f"{today.approvals} approvals instead of {then.approvals}"
    if more := sorted(group for group, count in today.groups.items() if count > then.groups.get(group, 0)):
        return f"{_count(today.groups[more[0]])} of {more[0]}"
    may = quorum.audience(today, timedelta())
    could = quorum.audience(then, timedelta())
    # Whoever is in a group is a reviewer as well; an administrator need not be one.
    if could & {quorum.ADMINS} - may if quorum.REVIEWERS in may else could - may:
        return f"somebody of {' or '.join(sorted(may))}"
    return None


def _count(people: int) -> str:
    return {1: "one", 2: "two", 3: "three"}.get(people, str(people))


def path_within(path: Json, folder: str) -> bool:
    """Whether an absolute path lies below a folder once `.` and `..` are worked out; nothing else is ever within.

    Backslashes, NUL and other controls are refused rather than read one way here and another way elsewhere.
    """
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
        return False
    if "\\" in path or not path.isprintable():
        return False
    base = posixpath.normpath(folder)
    found = posixpath.normpath(path)
    return found != base and found.startswith(base.rstrip("/") + "/")


def _write_below(policy: Policy, call: Call) -> str | None:
    if call.tool not in WRITERS or not call.local or call.hides:
        return None
    path = call.arguments.get("path")
    return next((folder for folder in policy.allow_writes_below if path_within(path, folder)), None)


def _ask(policy: Policy, call: Call, rule: str, because: str) -> Judgement:
    tier = policy.tiers.get(call.tool, policy.tier)
    reminders, escalation = ladder(policy.expires_after)
    requirement = Requirement(
        tier=tier,
        approvals=2 if tier is Tier.HIGH else 1,
        rule=rule,
        because=because,
        expires_after=policy.expires_after,
        reminders=reminders,
        escalation=escalation,
    )
    return Judgement("ask", rule, because, requirement)
