"""The page of the audit log, for auditors and administrators: what happened, filtered, and how far it is sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, StringConstraints

from banksman import ids
from banksman.errors import InvalidInput
from banksman.ledger import seals, staff, trail
from banksman.ledger.seals import Row
from banksman.sealing import heads, leaf
from banksman_gateway import audit, door, html, sessions
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

MOST = 100

router = APIRouter(include_in_schema=False)

Word = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)]


class Filters(BaseModel):
    """What the form asks for; an empty field leaves nothing out."""

    actor: Word = ""
    action: Word = ""
    run: Word = ""
    request: Word = ""
    since: Word = ""
    until: Word = ""
    before: Word = ""


@router.get("/audit")
def show_audit(wanted: Annotated[Filters, Query()], here: Here, session: SignedIn) -> Response:
    """Events, the newest first, and the newest head."""
    audit.must_audit(session.person)
    with door.transaction(here) as conn:
        named = staff.addresses(conn)
        people = {email.lower(): ids.show("per", person_id) for person_id, email in named.items()}
        which = audit.wanted_of(
            actor=people.get(wanted.actor.lower(), wanted.actor),
            action=wanted.action,
            run_id=wanted.run,
            request_id=wanted.request,
            since=_moment(wanted.since),
            until=_moment(wanted.until),
        )
        before = audit.cursor_of(wanted.before) if wanted.before else None
        rows = trail.read(conn, which, cursor=before, newest_first=True, limit=MOST + 1)
        actions = trail.actions(conn)
        signed = seals.newest_head(conn)
        head = None if signed is None else heads.read(signed)
        waiting = seals.waiting(conn, (0, 0) if head is None else head.cursor)
    names = {ids.show("per", person_id): email for person_id, email in named.items()}
    return html.page(
        "audit.html",
        **sessions.signed_in(here, session),
        events=[_event(row, names) for row in rows[:MOST]],
        older=_older(wanted, rows[MOST - 1]) if len(rows) > MOST else None,
        wanted=wanted,
        actions=actions,
        head=head,
        sealed_at=None if head is None else datetime.fromisoformat(head.at),
        waiting=waiting,
    )


def _event(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    event = json.loads(leaf.entry(row))
    body = event.get("body", event.get("text"))
    return event | {
        "at": datetime.fromisoformat(event["at"]),
        "who": names.get(event["actor"], event["actor"]),
        "detail": json.dumps(body, ensure_ascii=False) if body else "",
    }


def _older(wanted: Filters, last: Row) -> str:
    chosen = wanted.model_dump() | {"before": audit.cursor_at(last)}
    return "/audit?" + urlencode({name: value for name, value in chosen.items() if value})


def _moment(text: str) -> datetime | None:
    """A day or a moment, UTC where it does not say."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is no moment of the form 2026-01-31 or 2026-01-31T15:30.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
