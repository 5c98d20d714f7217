"""The states of runs and requests, and every move between them: the one table that code, tests and docs follow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STUCK = "stuck"


class RequestState(StrEnum):
    """Where a request is; the last three are set by the system and never allow anything."""

    OPEN = "open"
    APPROVED = "approved"
    DENIED = "denied"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Kind(StrEnum):
    """What a request asks for."""

    APPROVAL = "approval"
    QUESTION = "question"
    EXTERNAL = "external"
    OUTCOME = "outcome"


class Verdict(StrEnum):
    """What one vote says."""

    APPROVE = "approve"
    DENY = "deny"
    ANSWER = "answer"
    HAPPENED = "happened"
    RERUN = "rerun"
    STOP = "stop"


class Tier(StrEnum):
    """How much assurance a decision needs."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class NoticeState(StrEnum):
    """Where a notice is; `dropped` means that nobody needs it any more."""

    DUE = "due"
    CLAIMED = "claimed"
    SENT = "sent"
    DEAD = "dead"
    DROPPED = "dropped"


FINAL = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.CANCELLED})

VERDICTS: dict[Kind, frozenset[Verdict]] = {
    Kind.APPROVAL: frozenset({Verdict.APPROVE, Verdict.DENY}),
    Kind.QUESTION: frozenset({Verdict.ANSWER, Verdict.DENY}),
    Kind.EXTERNAL: frozenset({Verdict.ANSWER, Verdict.DENY}),
    Kind.OUTCOME: frozenset({Verdict.HAPPENED, Verdict.RERUN, Verdict.STOP}),
}

SETTLES: dict[Verdict, RequestState] = {
    Verdict.APPROVE: RequestState.APPROVED,
    Verdict.DENY: RequestState.DENIED,
    Verdict.ANSWER: RequestState.ANSWERED,
    Verdict.HAPPENED: RequestState.ANSWERED,
    Verdict.RERUN: RequestState.APPROVED,
    Verdict.STOP: RequestState.DENIED,
}


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a run: the ledger function that makes it, where it starts, where it ends."""

    by: str
    origins: frozenset[RunStatus]
    target: RunStatus
    when: str


def _move(by: str, origins: str, target: str, when: str) -> Move:
    return Move(by, frozenset(map(RunStatus, origins.split())), RunStatus(target), when)


RUN_MOVES: tuple[Move, ...] = (
    _move("claim", "queued running", "running", "a worker takes it; from running only past its lease"),
    _move("park", "running", "waiting", "the segment ended in open requests"),
    _move("finish", "running", "finished", "the agent gave its answer"),
    _move("fail", "running", "failed", "the run cannot go on"),
    _move("release", "running", "queued", "the worker drains and hands it back"),
    _move("postpone", "running", "queued", "the segment broke; it is tried again later"),
    _move("dispatch", "queued running", "queued", "due again: start, lost wake-up, expired lease"),
    _move("bury", "queued running", "stuck", "due again with its attempts used up"),
    _move("wake", "waiting", "queued", "it waits for no request and no child run"),
    _move("doubt", "queued running waiting", "stuck", "the database was restored: it may have acted since"),
    _move("retry", "stuck", "waiting", "a person gives it another chance; woken at once unless something is open"),
    _move("give_up", "stuck", "failed", "a person fails it, saying why"),
    _move("revive", "failed stuck", "queued", "its batch is tried again; waiting, while something is open"),
    _move("cancel", "queued waiting stuck", "cancelled", "asked for, while no worker holds it"),
    _move("stop", "running", "cancelled", "asked for; its worker stops it"),
    _move("bury_cancelled", "queued running", "cancelled", "asked for, and its worker is gone"),
)

REQUEST_MOVES: dict[str, RequestState] = {
    "settle": RequestState.APPROVED,
    "expire": RequestState.EXPIRED,
    "cancel_open": RequestState.CANCELLED,
    "supersede": RequestState.SUPERSEDED,
}
