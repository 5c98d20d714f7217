"""Forms: how a POST from one of our own pages is told from any other.

Three things must hold. The browser says that the page was ours (`Sec-Fetch-Site`, else `Origin`); the form carries
the token of the session it was made for; and no field stands twice, because two readers of a doubled field may take
different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request

from banksman.errors import InvalidInput, NotAllowed
from banksman.links import LinkKeys
from banksman_gateway import parts

_LIMIT = 1024 * 1024
_ELSEWHERE = "This form did not come from one of Banksman's own pages. Open the page again and send it from there."


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, each once."""

    fields: Mapping[str, str]

    def text(self, name: str) -> str:
        """A field without surrounding blanks; empty when it is missing."""
        return self.fields.get(name, "").strip()

    def must_be_of(self, links: LinkKeys, secret: bytes) -> None:
        """Nothing, when the form was made for this session; else `NotAllowed`."""
        if not links.form_token_holds(self.fields.get("form", ""), secret):
            raise NotAllowed(_ELSEWHERE)


async def read(request: Request) -> Form:
    """The form that was posted, once it is known to come from a page of ours."""
    _must_be_ours(request, parts.of(request.app).settings.public_url)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInput("A form is sent as application/x-www-form-urlencoded.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LIMIT:
            raise InvalidInput(f"The form is larger than {_LIMIT:,} bytes.")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=150)
    except ValueError:
        raise InvalidInput("The form cannot be read.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidInput("The form holds one field twice, so it is not clear what it says.")
    return Form({name: value.replace("\r\n", "\n") for name, value in fields.items()})


Posted = Annotated[Form, Depends(read)]
"""An endpoint's form."""


def _must_be_ours(request: Request, public_url: str) -> None:
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise NotAllowed(_ELSEWHERE)
    elif origin is not None:
        ours = urlsplit(public_url)
        if origin != f"{ours.scheme}://{ours.netloc}":
            raise NotAllowed(_ELSEWHERE)
