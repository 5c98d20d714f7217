"""Figures over HTTP: how reviewers decide, what each rule asks for, and somebody's receipt of a day.

How a person decides is shown to that person, and to operators, administrators and auditors; rules to whoever may read
requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints

from banksman import durations, ids
from banksman.errors import InvalidInput, NotAllowed
from banksman.ledger import Connection
from banksman.ledger import insights as rows
from banksman.ledger.insights import Line, OfPerson, OfRule
from banksman.records import Person
from banksman.states import RequestState
from banksman_gateway import door, problems, shapes
from banksman_gateway.door import ToRead
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.shapes import Shape

router = APIRouter(prefix="/v1", tags=["figures"], route_class=StrictRoute, responses=problems.ALSO)

OVERSEERS = frozenset({"operator", "admin", "auditor"})
LONGEST = timedelta(days=366)
USUAL = "30d"


class Reviewer(Shape):
    """How one reviewer decides; times are in seconds, from the opening of a request to the vote."""

    person: str
    name: str
    open: int = Field(description="Open requests that they could decide now, by their groups.")
    votes: int
    approve_share: float | None = Field(
        description="How many of the votes approved, answered, or let it be done again."
    )
    median_seconds: float | None
    fast_streak: int = Field(description="The longest row of votes, each within 3 seconds of the one before.")
    expired: int = Field(description="Requests that they could have decided, and nobody did.")


class Rule(Shape):
    """What one rule asked for, and what became of it; `median_seconds` is from the opening to the decision."""

    policy: str
    rule: str
    opened: int
    states: Mapping[str, int]
    approve_share: float | None = Field(description="Of what people decided, how much they approved or answered.")
    median_seconds: float | None


class Figures(Shape):
    """The figures of a span of time."""

    since: datetime
    until: datetime
    reviewers: Sequence[Reviewer]
    rules: Sequence[Rule]


class Item(Shape):
    """One vote, and what it came to. `outcome` is null where the call has not run."""

    at: datetime
    verdict: str
    request_id: str
    state: str
    run_id: str
    run_status: str
    agent: str
    tool: str
    outcome: str | None


class Receipt(Shape):
    """What somebody's votes of one day came to."""

    person: str
    since: datetime
    until: datetime
    figures: Reviewer
    items: Sequence[Item]
    audit_head: shapes.AuditHead | None


class Span(Body):
    """How far to look back."""

    since: Annotated[str, StringConstraints(max_length=10)] = Field(USUAL, description="Such as 24h, 30d or 12w.")


class Day(Body):
    """Which day, and where."""

    day: date | None = Field(None, description="Today when not given.")
    zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field("UTC", examples=["Europe/Vienna"])


@router.get("/insights", response_model=Figures)
def figures(wanted: Annotated[Span, Query()], way: ToRead) -> Response:
    """How reviewers decide and what rules ask for, in this time."""
    with way.enter() as (conn, caller):
        if caller.only_own("requests:read") is not None:
            raise NotAllowed("Figures are for reviewers, operators, administrators and auditors.")
        body = gather(conn, caller.person, wanted.since)
    return door.respond(200, door.to_bytes(body))


def gather(conn: Connection, person: Person | None, span: str) -> Figures:
    """The figures of a span of time (`30d`) that ends now, as this person, or no person, may see them."""
    until = datetime.now(UTC)
    since = until - durations.read(span, most=LONGEST)
    people = [item for item in rows.of_people(conn, since, until) if _may_see(person, item)]
    rules = rows.of_rules(conn, since, until)
    return Figures(since=since, until=until, reviewers=[*map(_reviewer, people)], rules=[*map(_rule, rules)])


@router.get("/me/receipt", response_model=Receipt)
def receipt(wanted: Annotated[Day, Query()], way: ToRead) -> Response:
    """What my votes of a day came to: decided how, run or not, with which outcome."""
    since, until = bounds(wanted.day, wanted.zone)
    with way.enter() as (conn, caller):
        caller.must("votes", "requests:read")
        if caller.person is None:
            raise NotAllowed("Receipts are people's: use a personal token.")
        lines = rows.receipt(conn, caller.person.id, since, until)
        mine = next((item for item in rows.of_people(conn, since, until) if item.person.id == caller.person.id), None)
    if mine is None:
        mine = OfPerson(caller.person, 0, 0, 0, None, 0, 0)
    body = Receipt(
        person=caller.person.email,
        since=since,
        until=until,
        figures=_reviewer(mine),
        items=[*map(_item, lines)],
        audit_head=shapes.audit_head(way.here.seal.head),
    )
    return door.respond(200, door.to_bytes(body))


def bounds(day: date | None, zone: str) -> tuple[datetime, datetime]:
    """A day's beginning and end where somebody is; 23 or 25 hours apart when the clocks change."""
    try:
        place = ZoneInfo(zone)
    except (ValueError, OSError, KeyError):
        raise InvalidInput(f"{zone!r} is not a time zone of the IANA list, such as Europe/Vienna.") from None
    chosen = day or datetime.now(place).date()
    if not 2000 <= chosen.year < 3000:
        raise InvalidInput(f"{day} is no day of the calendar that can be looked at.")
    begins = datetime.combine(chosen, time(), place).astimezone(UTC)
    return begins, datetime.combine(chosen + timedelta(days=1), time(), place).astimezone(UTC)


def _may_see(person: Person | None, item: OfPerson) -> bool:
    return person is not None and (bool(person.roles & OVERSEERS) or person.id == item.person.id)


def _reviewer(item: OfPerson) -> Reviewer:
    return Reviewer(
        person=item.person.email,
        name=item.person.name,
        open=item.open,
        votes=item.votes,
        approve_share=_share(item.agreed, item.votes),
        median_seconds=_seconds(item.median),
        fast_streak=item.streak,
        expired=item.expired,
    )


def _rule(item: OfRule) -> Rule:
    yes = item.states.get(RequestState.APPROVED, 0) + item.states.get(RequestState.ANSWERED, 0)
    return Rule(
        policy=item.policy,
        rule=item.rule,
        opened=item.opened,
        states={state.value: number for state, number in item.states.items()},
        approve_share=_share(yes, yes + item.states.get(RequestState.DENIED, 0)),
        median_seconds=_seconds(item.median),
    )


def _item(line: Line) -> Item:
    return Item(
        at=line.at,
        verdict=line.verdict.value,
        request_id=ids.show("req", line.request_id),
        state=line.state.value,
        run_id=ids.show("run", line.run_id),
        run_status=line.status.value,
        agent=line.agent,
        tool=line.tool,
        outcome=line.outcome,
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 1)
