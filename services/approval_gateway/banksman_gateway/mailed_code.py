"""The code that is mailed to a person and typed back where it was asked for: into a browser, or into a terminal.

A code to type, not a link to click: there is nothing for a scanner to use up, and a forwarded mail lets nobody in.
Whoever asks is handed a receipt that names the notice; without that receipt the code is worth nothing, and a browser's
receipt is none at a terminal.

Nothing tells whether somebody has an address, neither the answer nor the time that it takes: the same row is written
for every address, tries are counted for every receipt, and what is done only for people is done after the answer has
gone. Codes are few, and counted for each asker: a browser in which the person has signed in before has its own, so
nobody who types their address elsewhere keeps them out.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Literal
from uuid import UUID

from fastapi import BackgroundTasks, Request

from banksman import addresses, ids, logs
from banksman.errors import Unavailable
from banksman.ids import NoticeId, PersonId
from banksman.ledger import Connection, notices, people, sign_ins
from banksman.records import Notice, Person
from banksman_gateway import binding, door, link_page
from banksman_gateway.parts import Parts

LIFETIME = timedelta(minutes=10)
EACH = 5
"""How many codes one asker is sent within the lifetime of one: a browser that is known, or a network address."""
STRANGERS = 15
"""How many all those together whom the person has never signed in from."""
REMEMBERED = timedelta(days=90)
"""How long a browser is known after a sign-in."""

Use = Literal["pre", "attempt"]
"""Who asked: `pre`, a browser before its session; `attempt`, a terminal that wants a token."""

log = logs.get(__name__)


def send(here: Parts, use: Use, email: str, request: Request, later: BackgroundTasks, *, known: str = "") -> str:
    """Mail a code to the address, if somebody has it; the receipt does not tell.

    `known` is what a browser kept of an earlier sign-in (`remembered`).
    """
    address = addresses.checked(email)
    notice_id = NoticeId(ids.new())
    person = _remembers(here, known)
    asker = known if person is not None else request.client.host if request.client else ""
    with door.transaction(here) as conn:
        sign_ins.ask(conn, notice_id, address, asker=hashlib.sha256(asker.encode()).digest(), browser=person)
    later.add_task(_grant, here, notice_id)
    body = f"{notice_id.hex}.{secrets.token_hex(16)}"
    return f"{body}.{here.link_keys.form_token(_bound(use, body))}"


def proven(here: Parts, use: Use, receipt: str, typed: str) -> Notice | None:
    """The notice whose code was typed, if it fits. Each try is counted and committed before it is compared."""
    notice_id = _named(here, use, receipt)
    if notice_id is None or not link_page.is_code(typed, digits=binding.digits("sign_in")):
        return None
    with door.transaction(here) as conn:
        counted = sign_ins.try_code(conn, notice_id, tries=link_page.TRIES, lifetime=LIFETIME)
        notice = notices.named(conn, [notice_id]).get(notice_id)
    bound = {"person": "", "purpose": "sign_in"} if notice is None else binding.of(notice)
    fits = here.link_keys.code_holds(typed, notice_id, bound, digits=binding.digits("sign_in"))
    return notice if counted and fits and notice is not None and notice.kind == "sign_in" else None


def spend(conn: Connection, notice: Notice) -> Person | None:
    """The code's owner, once and in good standing; the code counts no more afterwards."""
    person = people.get(conn, notice.person_id)
    return person if not person.disabled and notices.use(conn, notice.id) else None


def remembered(here: Parts, person: PersonId) -> str:
    """What a browser keeps of a sign-in, to be known by at the next one. It opens nothing."""
    body = f"{person.hex}.{secrets.token_hex(16)}"
    return f"{body}.{here.link_keys.form_token(_bound('known', body))}"


def _grant(here: Parts, notice_id: NoticeId) -> None:
    """After the answer: write the notice, if somebody has the address and codes are left, and have it sent."""
    try:
        with door.transaction(here) as conn:
            granted = sign_ins.grant(conn, notice_id, lifetime=LIFETIME, each=EACH, strangers=STRANGERS)
    except Unavailable as error:
        log.warning("A code was not sent.", error=str(error)[:200])
        return
    if granted:
        here.wire.deliver([notice_id])


def _remembers(here: Parts, known: str) -> PersonId | None:
    """Who has signed in at the browser that kept this."""
    body, _, mac = known.rpartition(".")
    if len(known) > _LONGEST or not body.isascii() or not here.link_keys.form_token_holds(mac, _bound("known", body)):
        return None
    return PersonId(UUID(body.partition(".")[0]))


def _named(here: Parts, use: Use, receipt: str) -> NoticeId | None:
    """The notice that a genuine receipt names."""
    body, _, mac = receipt.rpartition(".")
    if not body.isascii() or not here.link_keys.form_token_holds(mac, _bound(use, body)):
        return None
    return NoticeId(UUID(body.partition(".")[0]))


def _bound(use: Use | Literal["known"], body: str) -> bytes:
    return f"{use}\0{body}".encode()


_LONGEST = 200
