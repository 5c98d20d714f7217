"""Signing in: an address, then the code that was mailed to it, typed into the browser that asked.

A code to type, not a link to click: there is nothing for a scanner to use up, and a forwarded mail signs nobody in.
The answer to an address is the same whether or not somebody has it. The browser that asked holds a cookie that names
the notice; without that cookie the code is worth nothing.
"""

from __future__ import annotations

import re
import secrets
from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Request, Response

from banksman import ids
from banksman.errors import InvalidInput, NotFound
from banksman.ids import NoticeId
from banksman.ledger import audit, notices, people
from banksman.records import Event
from banksman_gateway import binding, door, html, link_page, problems, sessions
from banksman_gateway.forms import Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import MaybeSignedIn, SignedIn

CODE_LIFETIME = timedelta(minutes=10)
MOST_CODES = 5
"""How many codes a person may have asked for within the lifetime of one."""

_PLACE = re.compile(r"/(?!/)[A-Za-z0-9/_-]{0,200}")
_PURPOSE = b"pre\0"

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def ask(session: MaybeSignedIn, next: str = "/") -> Response:  # noqa: A002  the name in the address
    """The form for an address."""
    if session is not None:
        return html.see(_place(next))
    return html.page("sign_in.html", person=None, next=_place(next))


@router.post("/sign-in")
def send(here: Here, form: Posted, later: BackgroundTasks) -> Response:
    """Mail a code to the address, if somebody has it; the answer does not tell."""
    email = form.text("email")
    if not re.fullmatch(r"[^\s@]{1,64}@[^\s@]{1,255}", email):
        raise InvalidInput("That is not an e-mail address.")
    notice_id = NoticeId(ids.new())
    with door.transaction(here) as conn:
        person = people.by_email(conn, email)
        sends = (
            person is not None
            and not person.disabled
            and notices.recent_sign_ins(conn, person.id, within=CODE_LIFETIME) < MOST_CODES
        )
        if person is not None and sends:
            notices.create_sign_in(conn, notice_id, person.id, lifetime=CODE_LIFETIME)
    if sends:
        later.add_task(here.wire.deliver, [notice_id])
    response = html.page("code.html", person=None, next=_place(form.text("next")))
    response.background = later
    sessions.set_cookie(
        response, here.settings, "pre", _pre(here, notice_id), lifetime=CODE_LIFETIME
    )
    return response


@router.post("/sign-in/code")
def check(request: Request, here: Here, form: Posted) -> Response:
    """The typed code → a session. Each try is counted and committed before it is compared."""
    place = _place(form.text("next"))
    notice_id = _asked(request, here)
    value = None if notice_id is None else _open(here, notice_id, form.fields.get("code", ""))
    if value is None:
        wrong = InvalidInput(
            "That code does not fit, or it counts no more. Type it again, or ask for a new one."
        )
        return html.page("code.html", 422, person=None, next=place, problem=problems.of(wrong))
    response = html.see(place)
    sessions.set_cookie(response, here.settings, "session", value, lifetime=sessions.LIFETIME)
    sessions.drop_cookie(response, here.settings, "pre")
    return response


@router.post("/sign-out")
def sign_out(here: Here, session: SignedIn, form: Posted) -> Response:
    """A session → over."""
    form.must_be_of(here.link_keys, session.secret)
    with door.transaction(here) as conn:
        sessions.end(conn, session)
        audit.append(conn, Event(ids.show("per", session.person.id), "session.ended"))
    response = html.see("/sign-in")
    sessions.drop_cookie(response, here.settings, "session")
    return response


def _open(here: Parts, notice_id: NoticeId, typed: str) -> str | None:
    """A session for the code's owner; None when the code does not fit or counts no more."""
    if not link_page.is_code(typed, digits=binding.CODE_DIGITS["sign_in"]):
        return None
    try:
        with door.transaction(here) as conn:
            notice = notices.get(conn, notice_id)
            counted = notices.try_code(conn, notice_id, tries=link_page.TRIES)
    except NotFound:
        return None
    if not counted or notice.kind != "sign_in" or not link_page.code_holds(here, notice, typed):
        return None
    with door.transaction(here) as conn:
        if people.get(conn, notice.person_id).disabled or not notices.use(conn, notice_id):
            return None
        audit.append(conn, Event(ids.show("per", notice.person_id), "session.started"))
        return sessions.start(conn, notice.person_id)


def _pre(here: Parts, notice_id: NoticeId) -> str:
    body = f"{notice_id.hex}.{secrets.token_hex(16)}"
    return f"{body}.{here.link_keys.form_token(_PURPOSE + body.encode())}"


def _asked(request: Request, here: Parts) -> NoticeId | None:
    """The notice that this browser asked for."""
    body, _, mac = (sessions.cookie(request, here.settings, "pre") or "").rpartition(".")
    if not body.isascii() or not here.link_keys.form_token_holds(mac, _PURPOSE + body.encode()):
        return None
    return NoticeId(UUID(body.partition(".")[0]))


def _place(text: str) -> str:
    """Where to go afterwards: a page of ours, or the inbox."""
    return text if _PLACE.fullmatch(text) else "/"
