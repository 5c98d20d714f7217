"""Revealing: a covered secret of a request, told to one person who may decide it, and written down before it is told.

The event is in the audit log, with the fingerprint and the reason, in the transaction that reads the value: who cannot
be written down is told nothing. Nobody else is told: an auditor sees masks, and so does whoever asked for the run.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import StringConstraints

from banksman import blocks, digest, ids, masks, render
from banksman.blocks import Block
from banksman.errors import InvalidInput, NotAllowed, NotGenuine
from banksman.ids import RequestId
from banksman.ledger import Connection, audit, people
from banksman.ledger import requests as rows
from banksman.ledger import votes as cast_votes
from banksman.masks import Secret
from banksman.records import Event, Request
from banksman.states import Kind
from banksman_gateway import auth, decide, door, html, problems, sessions, shapes, stand_ins, voters
from banksman_gateway.decide import Voter
from banksman_gateway.door import ToAct
from banksman_gateway.forms import Posted
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Here, Parts
from banksman_gateway.requests import RequestPath
from banksman_gateway.sessions import SignedIn

LONGEST = 500
"""How many characters a reason may have."""

router = APIRouter(prefix="/v1", tags=["requests"], route_class=StrictRoute, responses=problems.ALSO)
page = APIRouter(include_in_schema=False)


class Wish(Body):
    """Which secret to reveal, by the fingerprint in its mask, and why."""

    fingerprint: Annotated[str, StringConstraints(pattern="^[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}$")]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST)]


class Revealed(shapes.Shape):
    """One secret, as it is."""

    value: str
    what: str
    fingerprint: str


def reveal(conn: Connection, here: Parts, wanted: RequestId, voter: Voter, wish: Wish) -> tuple[Request, Secret]:
    """Covered → told to this one voter, with `request.revealed` in the audit log."""
    request = rows.get(conn, wanted)
    action = digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES)
    if digest.of_action(action) != request.digest:
        raise NotGenuine("The stored request does not match its own digest. Nothing of it is revealed.")
    _must_be_entitled(conn, here, request, voter)
    context = digest.parse(request.context, what="The stored context", limit=digest.MAX_CONTEXT_BYTES)
    found = next((one for one in render.of(action, context).secrets if one.fingerprint == wish.fingerprint), None)
    if found is None:
        raise InvalidInput("The request has no secret with this fingerprint now. Read it again.")
    told = {
        "revision": request.revision,
        "fingerprint": found.fingerprint,
        "what": found.what,
        "why": digest.printable(masks.conceal(wish.reason)),
    }
    audit.append(conn, Event(voter.actor, "request.revealed", request.run_id, request.id, told))
    return request, found


def _must_be_entitled(conn: Connection, here: Parts, request: Request, voter: Voter) -> None:
    """Who may decide it, the way they came; a machine that does the work elsewhere needs what the work takes."""
    if voter.person is None:
        if voter.key is not None and "requests:answer" in voter.key.scopes and request.kind is Kind.EXTERNAL:
            return
        raise NotAllowed("Secrets are revealed to people who may decide. (Scope requests:answer: for external work.)")
    person = people.get(conn, voter.person.id)
    auth.must_see(person, request.requester_id, f"request {ids.show('req', request.id)}")
    standing = [
        item for item in cast_votes.of_request(conn, request.id) if not decide.is_withdrawn(item, here.link_keys)
    ]
    who = stand_ins.standing(conn, request, [person], standing)[person.id]
    if (why := voters.hindrance(request, request.requirement, who, voter.channel)) is not None:
        raise NotAllowed(f"Secrets are revealed to who may decide. {why}")


@router.post("/requests/{request_id}/reveal", response_model=Revealed)
def reveal_secret(request_id: RequestPath, wish: Wish, way: ToAct) -> Response:
    """Tell one covered secret to who may decide the request. The audit log has it, with the reason.

    No Idempotency-Key keeps the answer: each call is checked and told anew.
    """
    with way.enter() as (conn, caller):
        if caller.person is not None:
            caller.must("votes")
            voter = Voter("token", person=caller.person)
        else:
            caller.must("requests:answer")
            voter = Voter("key", key=caller.key)
        request, found = reveal(conn, way.here, RequestId(ids.read("req", request_id)), voter, wish)
    way.here.wire.changed(run=request.run_id, request=request.id)
    told = Revealed(value=found.value, what=found.what, fingerprint=found.fingerprint)
    return door.respond(200, door.to_bytes(told))


@page.post("/requests/{request_id}/reveal")
def show_secret(request_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """One covered secret, to the person in the session, on a page of its own."""
    form.must_be_of(here.link_keys, session.secret)
    wanted = RequestId(ids.read("req", request_id))
    try:
        wish = Wish(fingerprint=form.text("fingerprint"), reason=form.text("why"))
    except ValueError:
        raise InvalidInput(f"Say in 1 to {LONGEST} characters why you have to see it.") from None
    with door.transaction(here) as conn:
        request, found = reveal(conn, here, wanted, Voter("session", person=session.person), wish)
    here.wire.changed(run=request.run_id, request=wanted)
    return html.page(
        "revealed.html", **sessions.signed_in(here, session), request=request, secret=found, shown_block=_block(found)
    )


def _block(found: Secret) -> Block:
    """The value, exact; `visible` text is never covered."""
    return blocks.whole("text", found.what, found.value)
