"""Looking: “Ana is looking”, for two minutes at a time, so that two people need not read the same. It binds nobody."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Response

from banksman import ids, quorum
from banksman.errors import NotAllowed
from banksman.ids import RequestId
from banksman.ledger import Connection, lookings
from banksman.ledger import requests as rows
from banksman.records import Person
from banksman_gateway import door, late, problems, requests, shapes
from banksman_gateway.door import ToAct
from banksman_gateway.intake import StrictRoute
from banksman_gateway.requests import RequestPath

LEASE = timedelta(minutes=2)

router = APIRouter(prefix="/v1", tags=["requests"], route_class=StrictRoute, responses=problems.ALSO)


def look(conn: Connection, request_id: RequestId, person: Person) -> None:
    """A person looks at an open request from now on, for a lease; said again, for another."""
    if not quorum.standing(person):
        raise NotAllowed("Only who may vote says that they are looking.")
    if not lookings.look(conn, request_id, person.id, lease=LEASE):
        raise late.answer(conn, rows.get(conn, request_id))


@router.post("/requests/{request_id}/looking", response_model=shapes.Request)
def say_looking(request_id: RequestPath, way: ToAct) -> Response:
    """Tell the others that you are looking at it, for two minutes; say it again to go on. It binds nobody."""
    return _change(request_id, way, looks=True)


@router.delete("/requests/{request_id}/looking", response_model=shapes.Request)
def stop_looking(request_id: RequestPath, way: ToAct) -> Response:
    """Tell the others that you look no longer."""
    return _change(request_id, way, looks=False)


def _change(request_id: str, way: door.Once, *, looks: bool) -> Response:
    with way.enter() as (conn, caller):
        person = caller.must_be_person("looks at a request")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        wanted = RequestId(ids.read("req", request_id))
        found = rows.get(conn, wanted)
        caller.must_see(found.requester_id, f"request {request_id}")
        if looks:
            look(conn, wanted, person)
        else:
            lookings.stop(conn, wanted, person.id)
        [shown] = requests.show(conn, way.here, [found])
        response = way.answer(conn, caller, 200, shown)
    way.here.wire.changed(run=found.run_id, request=wanted)
    return response
