"""Endpoints of webhooks over HTTP: administrators say where events go. The notifier alone sends."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, StringConstraints

from banksman import address_guard, ids
from banksman.errors import Conflict, NotAllowed, NotFound
from banksman.ids import DeliveryId, EndpointId
from banksman.ledger import Connection, audit
from banksman.ledger import endpoints as rows
from banksman.records import Endpoint as Record
from banksman.records import Event
from banksman_gateway import door, problems, shapes
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, Nothing, StrictRoute
from banksman_gateway.shapes import Shape

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], route_class=StrictRoute, responses=problems.ALSO)

MOST = 20
OVERLAP = timedelta(hours=24)
"""How long the old secret signs after a rotation."""

EventName = Literal[
    "request.opened",
    "request.approved",
    "request.denied",
    "request.answered",
    "request.expired",
    "request.cancelled",
    "request.superseded",
    "request.revised",
    "run.finished",
    "run.failed",
    "run.cancelled",
    "run.stuck",
]
EndpointPath = Annotated[str, Path(examples=["end_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class NewEndpoint(Body):
    """Where to send what; without `events`, all of them."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    events: Annotated[list[EventName], Field(min_length=1, max_length=50)] | None = None


class Endpoint(Shape):
    """An endpoint. `secret` is in the answer that makes it, or a new one, and nowhere else."""

    id: str
    url: str
    events: list[str]
    created_by: str
    created_at: datetime
    state: Literal["live", "failing", "disabled"]
    disabled_at: datetime | None
    disabled_because: str | None
    failing_since: datetime | None
    rotating: bool = Field(description="Whether the secret before this one signs as well.")
    dead: int = Field(description="Deliveries that were given up.")
    secret: str | None = None


class Delivery(Shape):
    """One event to this endpoint; its id is the `webhook-id`."""

    id: str
    event: str
    run_id: str | None
    request_id: str | None
    happened_at: datetime
    state: str
    attempts: int
    due_at: datetime | None
    sent_at: datetime | None
    last_error: str | None


class DeliveryFilter(Body):
    """Which deliveries to list."""

    state: Literal["due", "claimed", "sent", "dead"] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None


class Redeliver(Body):
    """Which delivery; without one, all that are dead."""

    delivery_id: str | None = None


class Redelivered(Shape):
    """How many are due once more."""

    deliveries: int


@router.get("", response_model=shapes.Page[Endpoint])
def list_endpoints(way: ToRead) -> Response:
    """All endpoints, without their secrets."""
    with way.enter() as (conn, caller):
        _must_look(caller)
        found = rows.everything(conn)
    return door.respond(200, door.to_bytes(shapes.Page[Endpoint](items=[_shape(item) for item in found])))


@router.post("", response_model=Endpoint)
def add(wanted: NewEndpoint, way: ToAct) -> Response:
    """Make an endpoint, which hears of everything from now on. Its secret is in this answer and nowhere else: no
    Idempotency-Key keeps it.
    """
    free = address_guard.allowed(way.here.settings.webhook_allow)
    url = address_guard.target(wanted.url, free).url
    with way.enter() as (conn, caller):
        admin = _must_administer(caller)
        if len(rows.everything(conn)) >= MOST:
            raise Conflict(f"There are {MOST} endpoints, which is the most. Remove one first.")
        endpoint_id, secret = EndpointId(ids.new()), _secret()
        events = list(dict.fromkeys(wanted.events or rows.EVENTS))
        rows.create(conn, endpoint_id, url=url, secret=secret, events=events, by=admin)
        _note(conn, caller, "endpoint.added", endpoint_id)
        shown = _shape(rows.get(conn, endpoint_id), secret)
    return door.respond(200, door.to_bytes(shown))


@router.get("/{endpoint_id}", response_model=Endpoint)
def show(endpoint_id: EndpointPath, way: ToRead) -> Response:
    """One endpoint, without its secret."""
    with way.enter() as (conn, caller):
        _must_look(caller)
        found = rows.get(conn, _read(endpoint_id))
    return door.respond(200, door.to_bytes(_shape(found)))


@router.get("/{endpoint_id}/deliveries", response_model=shapes.Page[Delivery])
def list_deliveries(endpoint_id: EndpointPath, wanted: Annotated[DeliveryFilter, Query()], way: ToRead) -> Response:
    """What was sent there or is to be, newest first."""
    with way.enter() as (conn, caller):
        _must_look(caller)
        found = rows.deliveries(
            conn,
            rows.get(conn, _read(endpoint_id)).id,
            state=wanted.state,
            before=None if wanted.cursor is None else DeliveryId(ids.read("dlv", wanted.cursor)),
            limit=wanted.limit + 1,
        )
    shown = [
        Delivery(
            id=ids.show("dlv", item.id),
            event=item.event,
            run_id=None if item.run_id is None else ids.show("run", item.run_id),
            request_id=None if item.request_id is None else ids.show("req", item.request_id),
            happened_at=item.happened_at,
            state=item.state,
            attempts=item.attempts,
            due_at=item.due_at,
            sent_at=item.sent_at,
            last_error=item.last_error,
        )
        for item in found[: wanted.limit]
    ]
    more = shown[-1].id if len(found) > wanted.limit else None
    return door.respond(200, door.to_bytes(shapes.Page[Delivery](items=shown, next_cursor=more)))


@router.post("/{endpoint_id}/disable", response_model=Endpoint)
def disable(endpoint_id: EndpointPath, way: ToAct, body: Nothing | None = None) -> Response:
    """Send nothing more there, until it is enabled."""
    del body
    return _move(endpoint_id, way, "endpoint.disabled", lambda conn, one: rows.disable(conn, one, "by hand"))


@router.post("/{endpoint_id}/enable", response_model=Endpoint)
def enable(endpoint_id: EndpointPath, way: ToAct, body: Nothing | None = None) -> Response:
    """Send there again, beginning with what it missed."""
    del body
    return _move(endpoint_id, way, "endpoint.enabled", rows.enable)


@router.post("/{endpoint_id}/rotate", response_model=Endpoint)
def rotate(endpoint_id: EndpointPath, way: ToAct, body: Nothing | None = None) -> Response:
    """Make a new secret; for 24 hours the old one signs as well. No Idempotency-Key keeps it."""
    del body
    with way.enter() as (conn, caller):
        _must_administer(caller)
        found, secret = rows.get(conn, _read(endpoint_id)), _secret()
        rows.rotate(conn, found.id, secret, overlap=OVERLAP)
        _note(conn, caller, "endpoint.rotated", found.id)
        shown = _shape(rows.get(conn, found.id), secret)
    return door.respond(200, door.to_bytes(shown))


@router.post("/{endpoint_id}/remove", response_model=Endpoint)
def remove(endpoint_id: EndpointPath, way: ToAct, body: Nothing | None = None) -> Response:
    """Forget it for good, with its secrets and whatever was still to be sent there."""
    del body
    with way.enter() as (conn, caller):
        _must_administer(caller)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        found = rows.get(conn, _read(endpoint_id))
        rows.remove(conn, found.id)
        _note(conn, caller, "endpoint.removed", found.id)
        return way.answer(conn, caller, 200, _shape(found))


@router.post("/{endpoint_id}/redeliver", response_model=Redelivered)
def redeliver(endpoint_id: EndpointPath, wanted: Redeliver, way: ToAct) -> Response:
    """Send a delivery once more, or all dead ones, under the same webhook-id."""
    with way.enter() as (conn, caller):
        _must_administer(caller)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        found = rows.get(conn, _read(endpoint_id))
        if found.disabled_at is not None:
            raise Conflict(f"{endpoint_id} is disabled ({found.disabled_because}). Enable it first.")
        one = None if wanted.delivery_id is None else DeliveryId(ids.read("dlv", wanted.delivery_id))
        count = rows.redeliver(conn, found.id, one)
        if one is not None and not count:
            raise NotFound(f"{endpoint_id} has no delivery {wanted.delivery_id} that was sent or given up.")
        _note(conn, caller, "endpoint.redelivered", found.id)
        return way.answer(conn, caller, 200, Redelivered(deliveries=count))


def _move(endpoint_id: str, way: door.Once, action: str, move: Callable[[Connection, EndpointId], bool]) -> Response:
    with way.enter() as (conn, caller):
        _must_administer(caller)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        found = rows.get(conn, _read(endpoint_id))
        if move(conn, found.id):
            _note(conn, caller, action, found.id)
        return way.answer(conn, caller, 200, _shape(rows.get(conn, found.id)))


def _must_administer(caller: Caller) -> ids.PersonId:
    caller.must("votes")
    if caller.person is None or "admin" not in caller.person.roles:
        raise NotAllowed("Only an administrator manages webhooks.")
    return caller.person.id


def _must_look(caller: Caller) -> None:
    """An auditor reads them too."""
    if caller.person is None or "auditor" not in caller.person.roles:
        _must_administer(caller)


def _note(conn: Connection, caller: Caller, action: str, endpoint_id: EndpointId) -> None:
    audit.append(conn, Event(caller.actor, action, body={"endpoint": ids.show("end", endpoint_id)}))


def _read(text: str) -> EndpointId:
    return EndpointId(ids.read("end", text))


def _secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _shape(found: Record, secret: str | None = None) -> Endpoint:
    failing = "failing" if found.failing_since else "live"
    return Endpoint(
        id=ids.show("end", found.id),
        url=found.url,
        events=list(found.events),
        created_by=found.created_by,
        created_at=found.created_at,
        state="disabled" if found.disabled_at else failing,
        disabled_at=found.disabled_at,
        disabled_because=found.disabled_because,
        failing_since=found.failing_since,
        rotating=found.rotating,
        dead=found.dead,
        secret=secret,
    )
