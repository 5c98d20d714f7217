"""The notifier's door: it names notices that exist, and is given their links and codes. It holds no key."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from banksman import ids
from banksman.errors import NotSignedIn
from banksman.ids import NoticeId
from banksman.ledger import notices
from banksman.ledger.insights import RECEIPT_LIFE
from banksman.records import Notice
from banksman_gateway import binding, door, parts
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Here, Parts


async def _is_notifier(request: Request) -> None:
    token = parts.of(request.app).settings.notifier_token.get_secret_value()
    kind, _, sent = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(sent.encode("utf-8", "replace"), token.encode())
    if kind.lower() != "bearer" or not same:
        raise NotSignedIn("Only the notifier comes in here.")


router = APIRouter(
    prefix="/internal", route_class=StrictRoute, include_in_schema=False, dependencies=[Depends(_is_notifier)]
)


class Wanted(Body):
    """The notices to mint for, each as `ntc_…` or as plain hex."""

    notices: Annotated[list[str], Field(max_length=100)]


class Minted(BaseModel):
    """What a mail carries. A sign-in's URL is the page to type the code into; it signs nobody in by itself.

    `page` is the matter's own address, for whoever is signed in. A kind of notice that decides nothing (a remark, a
    receipt, a test) has no other, and no code.
    """

    notice: str
    kind: str
    url: str
    page: str
    code: str
    code_digits: int
    expires_at: datetime


class Refused(BaseModel):
    """Why a notice gets no link: it is not there, or its link would count no more."""

    notice: str
    reason: str


class Answer(BaseModel):
    """One item for each notice that was named, in the same order; and where people find the gateway."""

    items: list[Minted | Refused]
    home: str


@router.post("/links")
def mint(wanted: Wanted, here: Here) -> Response:
    """The links and codes of notices, the same ones each time, in one call for a handful."""
    asked = [_read(name) for name in wanted.notices]
    with door.transaction(here) as conn:
        found = notices.named(conn, asked)
    items = [_answer(here, notice_id, found.get(notice_id)) for notice_id in asked]
    answer = Answer(items=items, home=here.settings.public_url.rstrip("/"))
    return door.respond(200, door.to_bytes(answer))


def _read(name: str) -> NoticeId:
    return NoticeId(ids.read("ntc", name if name.startswith("ntc_") else f"ntc_{name}"))


def _path(notice: Notice) -> str:
    """Where the matter of a notice is found by whoever is signed in."""
    if notice.kind == "receipt":
        return f"/receipts/{(notice.expires_at - RECEIPT_LIFE).astimezone(UTC):%Y-%m-%d}"
    return "/" if notice.request_id is None else f"/requests/{ids.show('req', notice.request_id)}"


def _answer(here: Parts, notice_id: NoticeId, notice: Notice | None) -> Minted | Refused:
    shown = ids.show("ntc", notice_id)
    if notice is None:
        return Refused(notice=shown, reason="There is no such notice.")
    if not notice.live:
        return Refused(notice=shown, reason="This notice counts no more.")
    base = here.settings.public_url.rstrip("/")
    page = f"{base}{_path(notice)}"
    url, code, digits = page, "", binding.digits(notice.kind)
    if digits:
        bound = binding.of(notice)
        code = here.link_keys.code(notice.id, bound, digits=digits)
        url = f"{base}/sign-in" if notice.kind == "sign_in" else f"{base}/l/{here.link_keys.token(notice.id, bound)}"
    return Minted(
        notice=shown, kind=notice.kind, url=url, page=page, code=code, code_digits=digits, expires_at=notice.expires_at
    )
