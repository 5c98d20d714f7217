"""Receipts: a mail a day to everybody who voted, and the page it leads to, of what those votes came to.

A receipt covers the 24 hours up to `BANKSMAN_RECEIPT_HOUR` (UTC). Whoever did not vote gets none, and nobody gets one
twice: the notice of a day exists once for each person, whichever gateway writes it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from fastapi import APIRouter, Response

from banksman import ledger
from banksman.errors import InvalidInput
from banksman.ledger import insights
from banksman_gateway import door, html, sessions
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import SignedIn

router = APIRouter(include_in_schema=False)


def queue(here: Parts) -> int:
    """Write the notices of the last receipts that are due and not written yet; how many."""
    hour = here.settings.receipt_hour
    if hour is None:
        return 0
    with ledger.transaction(here.pool) as conn:
        told = insights.queue_receipts(conn, hour=hour)
    here.wire.deliver(told)
    return len(told)


@router.get("/receipts/{day}")
def show(day: str, here: Here, session: SignedIn) -> Response:
    """What my votes of the 24 hours up to that day's receipt came to, as it stands now."""
    until = _end(day, here.settings.receipt_hour or 0)
    since = until - timedelta(days=1)
    with door.transaction(here) as conn:
        lines = insights.receipt(conn, session.person.id, since, until)
    return html.page(
        "receipt.html",
        **sessions.signed_in(here, session),
        since=since,
        until=until,
        lines=lines,
        became=insights.became,
        head=here.seal.head,
    )


def _end(day: str, hour: int) -> datetime:
    try:
        chosen = date.fromisoformat(day)
    except ValueError:
        raise InvalidInput(f"{day[:20]!r} is not a day of the form 2026-01-31.") from None
    if not 2000 <= chosen.year < 3000:
        raise InvalidInput(f"There are no receipts of the year {chosen.year}.")
    return datetime.combine(chosen, time(hour), UTC)
