"""Silence: what the gateway does while nobody decides: reminders, the escalation ladder, the deadline.

Silence never allows anything. What it does mean was frozen in the requirement when the request opened, and each step of
it is made by the database's clock: the call is not made and the run goes on (*expired*, by nobody's vote and without a
signature), or the run ends, or the request goes on waiting, as long again. Each request is a transaction of its own,
behind its run's row like every decision: a vote and a step that come together meet there, and one of them finds the
other done. A step and the notices that tell of it are one transaction, so whoever dies in the middle has told nobody.

After hours without a gateway everything that was missed is made up for once: each rung, one reminder for all of them,
and, once the deadline has passed for good, that alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from banksman import ids, ledger, logs, quorum
from banksman import silence as ladder
from banksman.digest import Json
from banksman.errors import Crossed, NotGenuine, Unavailable
from banksman.ids import NoticeId, RequestId, RunId
from banksman.ledger import Connection, audit, families, requests, runs, stops
from banksman.ledger import silence as rows
from banksman.ledger.silence import Reached
from banksman.records import Event, Request
from banksman.states import Kind
from banksman_gateway import waited_for
from banksman_gateway.decide import START_GRACE, stamp
from banksman_gateway.parts import Parts
from banksman_gateway.stand_ins import Standing

ACTOR = "gateway"
_AT_ONCE = 100

log = logs.get(__name__)


def act(here: Parts, *, until: threading.Event | None = None) -> int:
    """Make every step that is due, each request in its own transaction; how many requests were moved."""
    moved = 0
    last: tuple[RunId, RequestId] | None = None
    while True:
        with ledger.transaction(here.pool) as conn:
            due = rows.due(conn, last, limit=_AT_ONCE)
        for last in due:
            if until is not None and until.is_set():
                return moved
            moved += _tried(here, *last)
        if len(due) < _AT_ONCE:
            return moved


def unreachable(conn: Connection, request: Request) -> str | None:
    """Why nobody, or too few people, may decide an open request, and what to do about it; None when enough may."""
    return _unreachable(conn, request, waited_for.may_decide(conn, request))


def _tried(here: Parts, run_id: RunId, request_id: RequestId) -> bool:
    try:
        return _step(here, run_id, request_id)
    except Crossed as error:
        log.info("A request is looked at in the next round.", request=request_id.hex, error=str(error)[:200])
    except Unavailable:
        raise
    except Exception as error:  # whatever is wrong with one row, the others are seen to
        log.exception("A request could not be seen to.", request=request_id.hex, error=str(error)[:200])
    return False


def _step(here: Parts, run_id: RunId, request_id: RequestId) -> bool:
    told: Sequence[NoticeId] = ()
    segment: int | None = None
    with ledger.transaction(here.pool) as conn:
        if requests.get(conn, request_id).requirement.on_expiry == "stop":
            families.hold_whole(conn, request_id)
        runs.lock(conn, run_id)
        reached = rows.reached(conn, request_id)
        if reached is None:
            return False
        request = requests.get(conn, request_id)
        if request.overdue:
            segment = _expire(conn, here, request)
        else:
            told = _go_on(conn, here, request, reached)
    if segment is not None:
        here.wire.run((run_id, segment))
    here.wire.deliver(told)
    here.wire.changed(run=run_id, request=request_id)
    return True


def _expire(conn: Connection, here: Parts, request: Request) -> int | None:
    """Open → expired; the segment to resume, when the run waits for nothing more."""
    if not rows.expire(conn, request.id):
        return None
    _note(conn, request, "request.expired")
    if request.requirement.on_expiry == "stop":
        stops.stop(
            conn, [families.root(conn, request.run_id), request.run_id], ACTOR, because="Nobody decided in time."
        )
        return None
    return runs.wake(conn, request.run_id, hint=here.hint)


def _go_on(conn: Connection, here: Parts, request: Request, reached: Reached) -> Sequence[NoticeId]:
    """Open → open: rungs, reminders and extensions that are due; the notices that tell of them."""
    requirement = request.requirement
    due = ladder.due(requirement, reached.since, reached.age)
    extended = _extend(conn, here, request) if reached.over else None
    may = waited_for.may_decide(conn, request)
    why = _unreachable(conn, request, may)
    rows.wait(
        conn,
        request.id,
        next_at=due.next,
        audience=quorum.audience(requirement, reached.age),
        unreachable=why is not None,
    )
    spoken = waited_for.spoken(conn, request)
    left = [who for who in may if who.person.id not in spoken]
    called = [who for who in left if any(not who.groups.isdisjoint(rung.groups) for rung in due.rungs)]
    told = rows.tell(conn, request.id, "escalation", [who.person.id for who in called])
    for rung in due.rungs:
        _note(conn, request, "request.escalated", {"groups": list(rung.groups), "after": rung.after})
    if extended is not None or due.reminds:
        again = [who.person.id for who in left if who not in called]
        reminded = rows.tell(conn, request.id, "reminder", again)
        told = [*told, *reminded]
        if extended is None:
            _note(conn, request, "request.reminded", {"told": len(reminded)})
        else:
            _note(conn, request, "request.extended", {**extended, "told": len(told)})
    if why is not None and request.unreachable_at is None:
        _note(conn, request, "request.unreachable", {"why": why})
        log.warning("Nobody, or too few, may decide a request.", request=ids.show("req", request.id), why=why)
    elif why is None and request.unreachable_at is not None:
        _note(conn, request, "request.reachable")
    return told


def _extend(conn: Connection, here: Parts, request: Request) -> dict[str, Json] | None:
    """The deadline moved on; approvals that wait for this request with it stay good as long as they were to."""
    moved = rows.extend(conn, request.id, timedelta(seconds=request.requirement.expires_after))
    if moved is None:
        return None
    expires_at, times = moved
    renew(conn, here, request, expires_at)
    return {"times": times, "until": stamp(expires_at)}


def renew(conn: Connection, here: Parts, request: Request, expires_at: datetime) -> None:
    """Sign the siblings' approvals again, counted from this deadline: people decided them for when the run goes on.

    Only a signature that holds is renewed. What people said, to what, and who, stays word for word; the statement adds
    which extension is the reason, and the one that they decided stays where it is.
    """
    start_by = expires_at + START_GRACE
    for request_id, decision in rows.short_lived(conn, request.run_id, request.segment, start_by):
        try:
            said = here.verifier.verify(decision.signed)
            if said["request"] != ids.show("req", request_id):
                raise NotGenuine("The decision belongs to another request.")
        except NotGenuine as error:
            log.warning("A decision was not renewed.", request=ids.show("req", request_id), error=str(error))
            continue
        decided = said["renewed"]["decided"] if "renewed" in said else said["start_by"]
        waits = {"decided": decided, "for": ids.show("req", request.id)}
        statement = {**said, "start_by": stamp(start_by), "renewed": waits}
        rows.renew(conn, replace(decision, signed=here.signer.sign(statement), start_by=start_by))
        body: dict[str, Json] = {"start_by": stamp(start_by), "kid": here.signer.kid}
        audit.append(conn, Event(ACTOR, "decision.renewed", request.run_id, request_id, body))


def _unreachable(conn: Connection, request: Request, may: Sequence[Standing]) -> str | None:
    requirement = request.requirement
    # Either everybody speaks for themselves, or stand-ins do for those who are away: nobody's groups count twice.
    lending = {absent.id for who in may for absent in who.instead_of}
    alone = [quorum.standing(who.person) for who in may]
    instead = [who.groups for who in may if who.person.id not in lending]
    if any(quorum.met(requirement, people, request.age) for people in (alone, instead)):
        return None
    if request.kind is Kind.EXTERNAL and rows.answering_keys(conn):
        return None
    needed = f"{requirement.approvals} people" if requirement.approvals > 1 else "one person"
    of = " or ".join(sorted(quorum.audience(requirement, request.age)))
    found = "nobody" if not may else "too few people"
    besides = " besides whoever asked for the run" if request.kind in (Kind.APPROVAL, Kind.OUTCOME) else ""
    return (
        f"It needs {needed} of {of}{besides}, and {found} here may decide it: an administrator gives somebody that role"
        " or group, or somebody cancels the run."
    )


def _note(conn: Connection, request: Request, action: str, body: dict[str, Json] | None = None) -> None:
    audit.append(conn, Event(ACTOR, action, request.run_id, request.id, body or {}))
