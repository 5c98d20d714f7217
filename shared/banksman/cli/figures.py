"""Commands about figures: insights, receipt."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from banksman.cli import given, place, show
from banksman.errors import InvalidInput

_NO_CALL = {"approve": "has not run", "deny": "has not run", "answer": "no call"}


def insights(
    *,
    since: Annotated[str, typer.Option(help="How far to look back: such as 24h, 30d or 12w.")] = "30d",
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Show how reviewers decide and what each rule asks for."""
    with place.find().person(as_email) as banksman:
        found = banksman.insights(since)
    if as_json:
        show.as_json(found)
        return
    show.table(
        ["reviewer", "open", "votes", "approved", "median", "fast streak", "expired"],
        [
            [
                item.person,
                str(item.open),
                str(item.votes),
                _share(item.approve_share),
                _span(item.median_seconds),
                str(item.fast_streak or ""),
                str(item.expired),
            ]
            for item in found.reviewers
        ],
    )
    typer.echo()
    show.table(
        ["policy", "rule", "asked", "open", "approved", "median", "expired"],
        [
            [
                item.policy,
                item.rule,
                str(item.opened),
                str(item.states.get("open", 0)),
                _share(item.approve_share),
                _span(item.median_seconds),
                str(item.states.get("expired", 0)),
            ]
            for item in found.rules
        ],
    )


def receipt(
    *,
    day: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="Today when not given.", show_default=False)] = "",
    zone: Annotated[str, typer.Option(help="Where the day begins, such as Europe/Vienna.")] = "UTC",
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Show what your votes of a day came to: decided how, run or not, with which outcome."""
    try:
        chosen = date.fromisoformat(day) if day else None
    except ValueError:
        raise InvalidInput(f"{day[:40]!r} is not a day of the form 2026-01-31.") from None
    with place.find().person(as_email) as banksman:
        found = banksman.receipt(chosen, zone=zone)
    if as_json:
        show.as_json(found)
        return
    try:
        there = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise InvalidInput(f"This machine knows no time zone {zone[:40]!r}; --json gives the times in UTC.") from None
    show.table(
        ["at", "said", "tool", "agent", "request", "call", "run", ""],
        [
            [
                f"{item.at.astimezone(there):%H:%M:%S}",
                item.verdict,
                item.tool,
                item.agent,
                item.state,
                item.outcome or _NO_CALL.get(item.verdict, "has not run again"),
                item.run_status,
                item.request_id,
            ]
            for item in found.items
        ],
    )


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
