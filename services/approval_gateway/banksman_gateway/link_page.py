"""The mailed link. Opening it decides nothing and uses nothing up: mail scanners open links, and press buttons too.

A genuine link is answered with a short-lived cookie and a redirect to the request's own address, so that the token
stays out of histories and logs of other pages. A forged, unknown or foreign one gets the same 404 as any other.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Request, Response

from banksman import ids, links
from banksman.errors import NotFound, NotGenuine
from banksman.ids import NoticeId, RequestId
from banksman.ledger import notices, people
from banksman.records import Notice
from banksman_gateway import binding, door, html, sessions
from banksman_gateway.parts import Here, Parts

TRIES = 5
"""How often a typed code may be tried."""

VIEW = timedelta(minutes=15)
"""How long a browser may look at a request after it opened the link."""

_UNIFORM = "This link is not valid. Sign in to see what waits for you."

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class View:
    """A browser that opened a genuine link; its forms' tokens are bound to `secret`."""

    notice: NoticeId
    secret: bytes = field(repr=False)


@router.api_route("/l/{token}", methods=["GET", "HEAD"])
def follow(token: str, request: Request, here: Here) -> Response:
    """A link → its request, for a while. Remembers the first opening; decides nothing."""
    if _is_prefetch(request):
        return Response(status_code=204)
    try:
        pointer = links.point(token)
        with door.transaction(here) as conn:
            notice = notices.get(conn, NoticeId(pointer.notice))
            if notice.request_id is None or not binding.digits(notice.kind):
                raise NotFound(_UNIFORM)
            here.link_keys.verify(pointer, binding.of(notice))
            if people.get(conn, notice.person_id).disabled:
                raise NotFound(_UNIFORM)
            notices.seen(conn, notice.id)
    except (NotGenuine, NotFound):
        raise NotFound(_UNIFORM) from None
    response = html.see(f"/requests/{ids.show('req', notice.request_id)}")
    known = view_of(request, here, notice.request_id)
    # Opened twice in one browser, both pages' forms go on working.
    if known is None or known.notice != notice.id:
        name, value = _cookie(notice.request_id), _view(here, notice.id)
        sessions.set_cookie(response, here.settings, name, value, lifetime=VIEW)
    return response


def view_of(request: Request, here: Parts, wanted: RequestId) -> View | None:
    """The link to this request that this browser opened lately, if any."""
    value = sessions.cookie(request, here.settings, _cookie(wanted)) or ""
    body, _, mac = value.rpartition(".")
    if not body.isascii() or not here.link_keys.form_token_holds(mac, _PURPOSE + body.encode()):
        return None
    notice, until, _ = body.split(".")
    if int(until) < time.time():
        return None
    return View(NoticeId(UUID(notice)), _PURPOSE + body.encode() + b"\0form")


def is_code(typed: str, *, digits: int) -> bool:
    """Whether this could be a code at all. What could not is no try: a scanner's empty form uses nothing up."""
    plain = re.sub(r"[\s-]", "", typed)
    return len(plain) == digits and plain.isascii() and plain.isdecimal()


def code_holds(here: Parts, notice: Notice, typed: str) -> bool:
    """Whether the typed code is the one in the notice's mail."""
    return here.link_keys.code_holds(typed, notice.id, binding.of(notice), digits=binding.digits(notice.kind))


_PURPOSE = b"view\0"


def _cookie(wanted: RequestId) -> str:
    """One cookie for each request, so that several mails can be open side by side."""
    return f"view-{wanted.hex[-12:]}"


def _view(here: Parts, notice: NoticeId) -> str:
    until = int(time.time() + VIEW.total_seconds())
    body = f"{notice.hex}.{until}.{secrets.token_hex(16)}"
    return f"{body}.{here.link_keys.form_token(_PURPOSE + body.encode())}"


def _is_prefetch(request: Request) -> bool:
    return any("prefetch" in request.headers.get(name, "").lower() for name in ("sec-purpose", "purpose", "x-moz"))
