"""The page of figures: how reviewers decide, and what each rule asked for and came to."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from banksman.errors import NotFound
from banksman_gateway import auth, door, html, insights, sessions
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

SPANS = ("24h", "7d", "30d", "90d", "365d")

router = APIRouter(include_in_schema=False)


@router.get("/insights")
def show_insights(
    here: Here, session: SignedIn, since: Annotated[str, Query(max_length=10)] = insights.USUAL
) -> Response:
    """Figures of a span of time: reviewers' own for them, everybody's for whoever oversees, and the rules'."""
    if auth.own_only(session.person) is not None:
        raise NotFound("There is nothing here.")
    with door.transaction(here) as conn:
        found = insights.gather(conn, session.person, since)
    return html.page(
        "insights.html",
        **sessions.signed_in(here, session),
        figures=found,
        spans=SPANS,
        chosen=since,
        oversees=bool(session.person.roles & insights.OVERSEERS),
        share=_share,
        span=_span,
    )


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{timedelta(seconds=seconds) / timedelta(seconds=length):.0f} {unit}"
    return f"{seconds:.0f} s"
