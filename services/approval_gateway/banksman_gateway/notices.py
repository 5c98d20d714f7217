"""Notices over HTTP: who was told of what and what became of it, dead ones sent once more, and tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, StringConstraints

from banksman import addresses, ids
from banksman.errors import Conflict, InvalidInput, NotAllowed, NotFound
from banksman.ids import NoticeId, RequestId, RunId
from banksman.ledger import Connection, audit, preferences, staff, telling
from banksman.records import Event, Person, Told
from banksman_gateway import door, problems, shapes
from banksman_gateway.agents import OPERATORS
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, Nothing, StrictRoute
from banksman_gateway.shapes import Shape

router = APIRouter(prefix="/v1/notices", tags=["notices"], route_class=StrictRoute, responses=problems.ALSO)

AT_ONCE = 1000
"""How many dead notices are sent once more by one call."""
_TESTS, _WITHIN = 5, timedelta(minutes=10)

State = Literal["due", "held", "failed", "claimed", "sent", "dead", "dropped"]
NoticePath = Annotated[str, Path(examples=["ntc_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class Notice(Shape):
    """One message to one person. `held` waits for a summary or for the end of quiet hours, and says until when;
    `failed` waits to be tried again; `dead` was given up; `dropped` was needed no more.
    """

    id: str
    kind: str
    to: str
    channel: str
    request_id: str | None
    run_id: str | None
    state: State
    attempts: int
    last_error: str | None
    held: str | None
    due_at: datetime | None
    sent_at: datetime | None
    created_at: datetime


class NoticeFilter(Body):
    """Which notices to list."""

    state: State | None = None
    request_id: str | None = None
    run_id: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None


class Test(Body):
    """To whom (yourself, unless you are an operator or an administrator), and by which one way, if not by all."""

    to: Annotated[str, StringConstraints(max_length=254)] | None = None
    channel: Literal["email", "apprise"] | None = None


class Resent(Shape):
    """What is due once more."""

    notices: list[str]


@router.get("", response_model=shapes.Page[Notice])
def list_notices(wanted: Annotated[NoticeFilter, Query()], way: ToRead) -> Response:
    """Notices, newest first; who has no role sees their own."""
    with way.enter() as (conn, caller):
        found = telling.listed(
            conn,
            state=wanted.state,
            request_id=None if wanted.request_id is None else RequestId(ids.read("req", wanted.request_id)),
            run_id=None if wanted.run_id is None else RunId(ids.read("run", wanted.run_id)),
            person_id=caller.only_own("requests:read"),
            before=None if wanted.cursor is None else NoticeId(ids.read("ntc", wanted.cursor)),
            limit=wanted.limit + 1,
        )
    shown = [_shape(item) for item in found[: wanted.limit]]
    more = shown[-1].id if len(found) > wanted.limit else None
    return door.respond(200, door.to_bytes(shapes.Page[Notice](items=shown, next_cursor=more)))


@router.post("/resend", response_model=Resent)
def resend_all(way: ToAct, body: Nothing | None = None) -> Response:
    """Let the oldest 1,000 dead notices be sent once more; who needs no telling any more is not told."""
    del body
    return _resend(way, None)


@router.post("/test", response_model=Notice)
def send_test(wanted: Test, way: ToAct) -> Response:
    """Send a real message that says that it arrived. Look at the notice to see what becomes of it."""
    with way.enter() as (conn, caller):
        caller.must("votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        if caller.person is None:
            raise NotAllowed("Only people send test messages: use a personal token (`banksman login`).")
        person = _addressee(conn, caller.person, wanted.to)
        if telling.tests_of_late(conn, person.id, within=_WITHIN) >= _TESTS:
            raise Conflict(f"{person.email} was sent {_TESTS} test messages in the last 10 minutes. Wait a little.")
        usual = preferences.get(conn, person.id).channel
        if wanted.channel is not None and wanted.channel not in usual.split(","):
            raise InvalidInput(f"{person.email} is not told by {wanted.channel}, but by {usual}.")
        notice_id = NoticeId(ids.new())
        telling.test(conn, notice_id, person.id, wanted.channel or usual, lifetime=_WITHIN)
        audit.append(conn, Event(caller.actor, "notice.tested", body={"notice": ids.show("ntc", notice_id)}))
        answer = way.answer(conn, caller, 200, _shape(telling.get(conn, notice_id)))
    way.here.wire.deliver([notice_id])
    return answer


@router.get("/{notice_id}", response_model=Notice)
def show_notice(notice_id: NoticePath, way: ToRead) -> Response:
    """One notice as it stands."""
    with way.enter() as (conn, caller):
        found = telling.get(conn, NoticeId(ids.read("ntc", notice_id)))
        own = caller.only_own("requests:read")
        if own is not None and own != found.person_id:
            raise NotFound(f"There is no notice {notice_id}.")
    return door.respond(200, door.to_bytes(_shape(found)))


@router.post("/{notice_id}/resend", response_model=Resent)
def resend(notice_id: NoticePath, way: ToAct, body: Nothing | None = None) -> Response:
    """Let a dead notice be sent once more, with all of its attempts."""
    del body
    return _resend(way, NoticeId(ids.read("ntc", notice_id)))


def _resend(way: door.Once, which: NoticeId | None) -> Response:
    with way.enter() as (conn, caller):
        caller.must("votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        _must_operate(caller)
        found = telling.resend(conn, which, limit=AT_ONCE)
        if which is not None and not found:
            state = telling.get(conn, which).state
            raise Conflict(f"Notice {ids.show('ntc', which)} is {state}; only a dead one is sent once more.")
        shown = [ids.show("ntc", notice_id) for notice_id in found]
        if found:
            audit.append(conn, Event(caller.actor, "notice.resent", body={"notices": len(found), "first": shown[0]}))
        answer = way.answer(conn, caller, 200, Resent(notices=shown))
    way.here.wire.deliver(found)
    return answer


def _must_operate(caller: Caller) -> None:
    if caller.person is None or not caller.person.roles & OPERATORS:
        raise NotAllowed("Only an operator or an administrator sends notices once more.")


def _addressee(conn: Connection, person: Person, to: str | None) -> Person:
    if to is None or to.strip().lower() == person.email.lower():
        return person
    if not person.roles & OPERATORS:
        raise NotAllowed("Only an operator or an administrator sends test messages to somebody else.")
    found = staff.by_email(conn, addresses.checked(to))
    if found is None or found.disabled:
        raise NotFound(f"There is nobody with the address {to[:100]!r}, or they are disabled.")
    return found


def _shape(found: Told) -> Notice:
    return Notice(
        id=ids.show("ntc", found.id),
        kind=found.kind,
        to=found.to,
        channel=found.channel,
        request_id=None if found.request_id is None else ids.show("req", found.request_id),
        run_id=None if found.run_id is None else ids.show("run", found.run_id),
        state=found.state,  # pyright: ignore[reportArgumentType] - checked by the shape
        attempts=found.attempts,
        last_error=found.last_error,
        held=found.held,
        due_at=found.due_at,
        sent_at=found.sent_at,
        created_at=found.created_at,
    )
