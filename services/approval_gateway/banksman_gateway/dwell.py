"""Dwell: at tier high nobody agrees faster than one can read. The form carries when its page was made, under a MAC
that is bound to the session and to exactly what was shown; the vote is refused until the time has passed, and until
its box says that the whole of it was read.
"""

from __future__ import annotations

import re
import time

from banksman.errors import InvalidInput, NotAllowed
from banksman.links import LinkKeys
from banksman.records import Request

LONGEST = 12 * 3600
"""A page that is older than a session can be is opened again."""

_FORM = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


def stamp(keys: LinkKeys, session: bytes, request: Request) -> str:
    """What a form carries: that this was shown now, in this session."""
    now = int(time.time())
    return f"{now}.{keys.form_token(_bound(session, request, now))}"


def must_have_passed(keys: LinkKeys, session: bytes, request: Request, text: str, *, seconds: float) -> None:
    """Nothing, when what is voted on was shown in this session so long ago; else what to do."""
    match = _FORM.fullmatch(text)
    if match is None or not keys.form_token_holds(match[2], _bound(session, request, int(match[1]))):
        raise InvalidInput("This form was not made for what is asked now. Read the request again.")
    age = time.time() - int(match[1])
    if age > LONGEST:
        raise InvalidInput("This page is too old. Read the request again.")
    if age < seconds:
        raise NotAllowed(f"At tier high nobody agrees within {seconds:g} s of opening the page. Read it, then vote.")


def _bound(session: bytes, request: Request, at: int) -> bytes:
    return b"dwell\0%b\0%b\0%d\0%d\0%b" % (session, request.id.bytes, request.revision, at, request.digest)
