"""Signing in at a browser: an address, then the code that was mailed to it, typed into the browser that asked.

The browser that asked holds a cookie that names the notice; without that cookie the code is worth nothing.
"""

from __future__ import annotations

import re

from fastapi import APIRouter, BackgroundTasks, Request, Response

from banksman import ids
from banksman.errors import InvalidInput
from banksman.ids import PersonId
from banksman.ledger import audit
from banksman.records import Event
from banksman_gateway import door, html, mailed_code, problems, sessions
from banksman_gateway.forms import Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import MaybeSignedIn, SignedIn

_PLACE = re.compile(r"/(?!/)[A-Za-z0-9/_-]{0,200}")

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def ask(session: MaybeSignedIn, next: str = "/", lost: str = "") -> Response:  # noqa: A002  the name in the address
    """The form for an address; where something was `lost` on the way here, it says so."""
    if session is not None:
        return html.see(_place(next))
    return html.page("sign_in.html", person=None, next=_place(next), lost=bool(lost))


@router.post("/sign-in")
def send(request: Request, here: Here, form: Posted, later: BackgroundTasks) -> Response:
    """Mail a code to the address, if somebody has it; the answer does not tell."""
    known = sessions.cookie(request, here.settings, "known") or ""
    receipt = mailed_code.send(here, "pre", form.text("email"), request, later, known=known)
    response = html.page("code.html", person=None, next=_place(form.text("next")))
    response.background = later
    sessions.set_cookie(response, here.settings, "pre", receipt, lifetime=mailed_code.LIFETIME)
    return response


@router.post("/sign-in/code")
def check(request: Request, here: Here, form: Posted) -> Response:
    """The typed code → a session."""
    place = _place(form.text("next"))
    receipt = sessions.cookie(request, here.settings, "pre") or ""
    opened = _open(here, receipt, form.fields.get("code", ""))
    if opened is None:
        wrong = InvalidInput("That code does not fit, or it counts no more. Type it again, or ask for a new one.")
        return html.page("code.html", 422, person=None, next=place, problem=problems.of(wrong))
    response = html.see(place)
    value, person = opened
    sessions.set_cookie(response, here.settings, "session", value, lifetime=sessions.LIFETIME)
    known = mailed_code.remembered(here, person)
    sessions.set_cookie(response, here.settings, "known", known, lifetime=mailed_code.REMEMBERED)
    sessions.drop_cookie(response, here.settings, "pre")
    return response


@router.post("/sign-out")
def sign_out(here: Here, form: Posted, session: SignedIn) -> Response:
    """A session → over."""
    form.must_be_of(here.link_keys, session.secret)
    with door.transaction(here) as conn:
        sessions.end(conn, session)
        audit.append(conn, Event(ids.show("per", session.person.id), "session.ended"))
    response = html.see("/sign-in")
    sessions.drop_cookie(response, here.settings, "session")
    return response


def _open(here: Parts, receipt: str, typed: str) -> tuple[str, PersonId] | None:
    """A session for the code's owner; None when the code does not fit or counts no more."""
    notice = mailed_code.proven(here, "pre", receipt, typed)
    if notice is None:
        return None
    with door.transaction(here) as conn:
        person = mailed_code.spend(conn, notice)
        if person is None:
            return None
        audit.append(conn, Event(ids.show("per", person.id), "session.started"))
        return sessions.start(conn, person.id), person.id


def _place(text: str) -> str:
    """Where to go afterwards: a page of ours, or the inbox."""
    return text if _PLACE.fullmatch(text) else "/"
