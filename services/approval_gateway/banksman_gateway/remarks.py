"""Remarks: a reviewer asks the requester back before deciding, and gets an answer. Words of people, for people.

They are shown below the action as they are, never interpreted. They change neither the digest nor the deadline, and the
agent never reads them. Whoever is addressed is told by a notice: the requester, and everybody who has written before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import StringConstraints

from banksman import ids, quorum
from banksman.errors import InvalidInput, NotAllowed, NotFound
from banksman.ids import NoticeId, RemarkId, RequestId
from banksman.ledger import Connection, audit, people
from banksman.ledger import remarks as rows
from banksman.ledger import requests as asked
from banksman.records import Event, Person, Request
from banksman.states import RequestState
from banksman_gateway import auth, late, problems, requests, shapes
from banksman_gateway.door import ToAct
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.requests import RequestPath

LONGEST = 4000
"""How many characters one may have."""
MOST = 100
"""How many a request may have."""

router = APIRouter(prefix="/v1", tags=["requests"], route_class=StrictRoute, responses=problems.ALSO)


class Said(Body):
    """What to say to the people below a request."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST)]


def may(request: Request, person: Person) -> bool:
    """Whether this person may write below this request: who may vote, and who asked for the run."""
    return bool(quorum.standing(person)) or request.asked_by(person)


def add(conn: Connection, request_id: RequestId, person: Person, text: str) -> tuple[Request, Sequence[NoticeId]]:
    """A remark below an open request, and the notices to wake the notifier for."""
    request = asked.get(conn, request_id)
    if not may(request, person):
        if auth.own_only(person) is not None:
            raise NotFound(f"There is no request {ids.show('req', request_id)}.")
        raise NotAllowed("Only reviewers and whoever asked for the run write here.")
    if not 0 < len(text) <= LONGEST:
        raise InvalidInput(f"Write something, in at most {LONGEST:,} characters.")
    remark = RemarkId(ids.new())
    if not rows.add(conn, remark, request_id, person.id, text, most=MOST):
        request = asked.get(conn, request_id)
        if request.state is not RequestState.OPEN or request.overdue:
            raise late.answer(conn, request)
        raise InvalidInput(f"There are {MOST} remarks below this request. Talk to each other.")
    said = Event(ids.show("per", person.id), "remark.added", request.run_id, request_id, {"remark": remark.hex})
    audit.append(conn, said)
    told = {*rows.authors(conn, request_id), *([request.requester_id] if request.requester_id else [])} - {person.id}
    known = people.named(conn, told).values()
    notices = [(NoticeId(ids.new()), one.id) for one in known if not one.disabled]
    return request, rows.tell(conn, request_id, notices) if notices else []


@router.post("/requests/{request_id}/remarks", response_model=shapes.Request)
def say(request_id: RequestPath, said: Said, way: ToAct) -> Response:
    """Ask whoever wants the run, or answer. It changes neither what is asked nor until when."""
    with way.enter() as (conn, caller):
        person = caller.must_be_person("writes remarks")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        request, notices = add(conn, RequestId(ids.read("req", request_id)), person, said.text)
        [shown] = requests.show(conn, way.here, [request])
        response = way.answer(conn, caller, 200, shown)
    way.here.wire.deliver(notices)
    way.here.wire.changed(run=request.run_id, request=request.id)
    return response
