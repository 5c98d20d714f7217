"""The code that is mailed to a person and typed back where it was asked for: into a browser, or into a terminal.

A code to type, not a link to click: there is nothing for a scanner to use up, and a forwarded mail lets nobody in.
Nothing tells whether somebody has an address. Whoever asks is handed a receipt that names the notice; without that
receipt the code is worth nothing, and a browser's receipt is none at a terminal.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Literal
from uuid import UUID

from fastapi import BackgroundTasks

from banksman import addresses, ids
from banksman.errors import NotFound
from banksman.ids import NoticeId
from banksman.ledger import Connection, notices, people, sign_ins, staff
from banksman.records import Notice, Person
from banksman_gateway import binding, door, link_page
from banksman_gateway.parts import Parts

LIFETIME = timedelta(minutes=10)
MOST = 5
"""How many codes a person may have asked for within the lifetime of one, wherever."""

Use = Literal["pre", "attempt"]
"""Who asked: `pre`, a browser before its session; `attempt`, a terminal that wants a token."""


def send(here: Parts, use: Use, email: str, later: BackgroundTasks) -> str:
    """Mail a code to the address, if somebody has it; the receipt does not tell."""
    address = addresses.checked(email)
    notice_id = NoticeId(ids.new())
    with door.transaction(here) as conn:
        person = staff.by_email(conn, address)
        sends = person is not None and not person.disabled and sign_ins.recent(conn, person.id, within=LIFETIME) < MOST
        if person is not None and sends:
            sign_ins.create(conn, notice_id, person.id, lifetime=LIFETIME)
    if sends:
        later.add_task(here.wire.deliver, [notice_id])
    body = f"{notice_id.hex}.{secrets.token_hex(16)}"
    return f"{body}.{here.link_keys.form_token(_bound(use, body))}"


def proven(here: Parts, use: Use, receipt: str, typed: str) -> Notice | None:
    """The notice whose code was typed, if it fits. Each try is counted and committed before it is compared."""
    notice_id = _named(here, use, receipt)
    if notice_id is None or not link_page.is_code(typed, digits=binding.digits("sign_in")):
        return None
    try:
        with door.transaction(here) as conn:
            notice = notices.get(conn, notice_id)
            counted = notices.try_code(conn, notice_id, tries=link_page.TRIES)
    except NotFound:
        return None
    fits = counted and notice.kind == "sign_in" and link_page.code_holds(here, notice, typed)
    return notice if fits else None


def spend(conn: Connection, notice: Notice) -> Person | None:
    """The code's owner, once and in good standing; the code counts no more afterwards."""
    person = people.get(conn, notice.person_id)
    return person if not person.disabled and notices.use(conn, notice.id) else None


def _named(here: Parts, use: Use, receipt: str) -> NoticeId | None:
    """The notice that a genuine receipt names."""
    body, _, mac = receipt.rpartition(".")
    if not body.isascii() or not here.link_keys.form_token_holds(mac, _bound(use, body)):
        return None
    return NoticeId(UUID(body.partition(".")[0]))


def _bound(use: Use, body: str) -> bytes:
    return f"{use}\0{body}".encode()
