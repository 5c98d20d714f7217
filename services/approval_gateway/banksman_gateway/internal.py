"""The notifier's door: it names a notice that exists, and is given that notice's link and code. It holds no key."""

from __future__ import annotations

import hmac
from datetime import datetime

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from banksman import ids
from banksman.errors import Conflict, NotSignedIn
from banksman.ids import NoticeId
from banksman.ledger import notices
from banksman_gateway import binding, door, parts
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Here


async def _is_notifier(request: Request) -> None:
    token = parts.of(request.app).settings.notifier_token.get_secret_value()
    kind, _, sent = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(sent.encode("utf-8", "replace"), token.encode())
    if kind.lower() != "bearer" or not same:
        raise NotSignedIn("Only the notifier comes in here.")


router = APIRouter(
    prefix="/internal",
    route_class=StrictRoute,
    include_in_schema=False,
    dependencies=[Depends(_is_notifier)],
)


class Wanted(Body):
    """The notice to mint for, as `ntc_…` or as plain hex."""

    notice: str


class Minted(BaseModel):
    """What a mail carries. A sign-in's URL is the page to type the code into; it signs nobody in by itself."""

    kind: str
    url: str
    code: str
    code_digits: int
    expires_at: datetime


@router.post("/links")
def mint(wanted: Wanted, here: Here) -> Response:
    """The link and code of a notice, the same ones each time; 409 once they count no more."""
    shown = wanted.notice if wanted.notice.startswith("ntc_") else f"ntc_{wanted.notice}"
    with door.transaction(here) as conn:
        notice = notices.get(conn, NoticeId(ids.read("ntc", shown)))
    if not notice.live:
        raise Conflict("This notice counts no more.", {"used": notice.used_at is not None})
    bound = binding.of(notice)
    digits = binding.CODE_DIGITS[notice.kind]
    base = here.settings.public_url.rstrip("/")
    minted = Minted(
        kind=notice.kind,
        url=f"{base}/sign-in"
        if notice.kind == "sign_in"
        else f"{base}/l/{here.link_keys.token(notice.id, bound)}",
        code=here.link_keys.code(notice.id, bound, digits=digits),
        code_digits=digits,
        expires_at=notice.expires_at,
    )
    return door.respond(200, door.to_bytes(minted))
