"""How a person wishes to hear of things, over HTTP and on a page of their own: ways, quiet hours, gathering."""

from __future__ import annotations

import math
import re
from datetime import time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints

from banksman import chat_urls, ids
from banksman.errors import InvalidInput, NotAllowed
from banksman.ledger import Connection, audit, preferences
from banksman.records import Event, Person, Preferences, Quiet
from banksman_gateway import door, html, problems
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToRead
from banksman_gateway.forms import Form, Posted
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn
from banksman_gateway.shapes import Shape

router = APIRouter(prefix="/v1/me", tags=["me"], route_class=StrictRoute, responses=problems.ALSO)
page = APIRouter(include_in_schema=False)

_DAY_MINUTES = 24 * 60
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")

Clock = Annotated[str, StringConstraints(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Minutes = Annotated[float, Field(ge=0, le=_DAY_MINUTES, allow_inf_nan=False)]


class QuietHours(Body):
    """From when until when, by the clock on the wall in that zone (`Europe/Berlin`)."""

    begins: Clock
    ends: Clock
    zone: Annotated[str, StringConstraints(min_length=1, max_length=60)]


class Wanted(Body):
    """All of one's preferences; `apprise` is kept as it is where it is left out."""

    email: bool = True
    apprise: Annotated[
        list[Annotated[str, StringConstraints(max_length=600)]] | None,
        Field(max_length=chat_urls.MOST, description="Apprise's URLs of other services; they are never shown again."),
    ] = None
    quiet: QuietHours | None = None
    hold_high: Annotated[bool, Field(description="Whether quiet hours hold tier high, too.")] = False
    gather_medium_minutes: Minutes | None = None
    gather_low_minutes: Minutes | None = None


class Hearing(Shape):
    """How a person hears of things; null is as the notifier is set up. Of each URL its service is shown."""

    person: str
    email: bool
    apprise: list[str]
    quiet: QuietHours | None
    hold_high: bool
    gather_medium_minutes: float | None
    gather_low_minutes: float | None


@router.get("/preferences", response_model=Hearing)
def read(way: ToRead) -> Response:
    """How you hear of what waits for you."""
    with way.enter() as (conn, caller):
        caller.must("requests:read", "votes")
        person = _person(caller)
        found = preferences.get(conn, person.id)
    return door.respond(200, door.to_bytes(_shape(person, found)))


@router.put("/preferences", response_model=Hearing)
def write(wanted: Wanted, way: ToRead) -> Response:
    """Hear of things in exactly this way from now on."""
    with way.enter() as (conn, caller):
        # Whoever may keep a reviewer from hearing may keep them from voting.
        caller.must("votes")
        person = _person(caller)
        kept = preferences.get(conn, person.id).urls
        found = _put(
            conn,
            person,
            Preferences(
                email=wanted.email,
                urls=kept if wanted.apprise is None else chat_urls.checked(wanted.apprise),
                quiet=None if wanted.quiet is None else _quiet(wanted.quiet),
                hold_high=wanted.hold_high,
                gather_medium=_minutes(wanted.gather_medium_minutes),
                gather_low=_minutes(wanted.gather_low_minutes),
            ),
        )
    return door.respond(200, door.to_bytes(_shape(person, found)))


@page.get("/preferences")
def show(here: Here, session: SignedIn) -> Response:
    """The same as a form."""
    with door.transaction(here) as conn:
        found = preferences.get(conn, session.person.id)
    return _page(here, session.person, session.secret, found)


@page.post("/preferences")
def save(here: Here, form: Posted, session: SignedIn) -> Response:
    """What the form says, from now on. URLs are added to, or forgotten: they are never shown."""
    form.must_be_of(here.link_keys, session.secret)
    with door.transaction(here) as conn:
        kept = preferences.get(conn, session.person.id)
        try:
            _put(conn, session.person, _of_form(form, kept))
        except InvalidInput as error:
            return _page(here, session.person, session.secret, kept, error=error)
    return html.see("/preferences")


def _page(here: Here, person: Person, secret: bytes, found: Preferences, error: InvalidInput | None = None) -> Response:
    problem = None if error is None else problems.of(error)
    return html.page(
        "preferences.html",
        200 if problem is None else problem.status,
        person=person,
        form_token=here.link_keys.form_token(secret),
        wanted=_shape(person, found),
        problem=problem,
    )


def _of_form(form: Form, kept: Preferences) -> Preferences:
    begins, ends, zone = form.text("begins"), form.text("ends"), form.text("zone")
    quiet = None
    if begins or ends:
        if not _CLOCK.fullmatch(begins) or not _CLOCK.fullmatch(ends):
            raise InvalidInput("Quiet hours are two times like 22:00 and 07:00, or both are left empty.")
        quiet = _quiet(QuietHours(begins=begins, ends=ends, zone=zone[:60] or "UTC"))
    added = [line for line in form.text("apprise").split("\n") if line.strip()]
    urls = () if form.text("forget") else kept.urls
    return Preferences(
        email=bool(form.text("email")),
        urls=chat_urls.checked([*urls, *(line.strip() for line in added)]),
        quiet=quiet,
        hold_high=bool(form.text("hold_high")),
        gather_medium=_minutes(_number(form.text("gather_medium_minutes"))),
        gather_low=_minutes(_number(form.text("gather_low_minutes"))),
    )


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _DAY_MINUTES:
        raise InvalidInput(f"{text[:20]!r} is no number of minutes from 0 to {_DAY_MINUTES}.")
    return number


def _put(conn: Connection, person: Person, wanted: Preferences) -> Preferences:
    if not wanted.email and not wanted.urls:
        raise InvalidInput("One way must stay by which you can be told: e-mail, or a URL of another service.")
    preferences.put(conn, person.id, wanted)
    body = {"email": wanted.email, "apprise": len(wanted.urls), "quiet": wanted.quiet is not None}
    audit.append(conn, Event(ids.show("per", person.id), "preferences.changed", body=body))
    return wanted


def _person(caller: Caller) -> Person:
    if caller.person is None:
        raise NotAllowed("Only people have preferences: use a personal token (`banksman login`).")
    return caller.person


def _quiet(given: QuietHours) -> Quiet:
    if given.zone not in available_timezones():
        raise InvalidInput(f"There is no time zone {given.zone!r}. One is Europe/Berlin, another UTC.")
    ZoneInfo(given.zone)
    if given.begins == given.ends:
        raise InvalidInput("Quiet hours that begin when they end would never end. Leave them out to have none.")
    return Quiet(time.fromisoformat(given.begins), time.fromisoformat(given.ends), given.zone)


def _minutes(number: float | None) -> timedelta | None:
    return None if number is None else timedelta(minutes=number)


def _shape(person: Person, found: Preferences) -> Hearing:
    quiet = found.quiet
    return Hearing(
        person=person.email,
        email=found.email,
        apprise=[chat_urls.masked(url) for url in found.urls],
        quiet=None
        if quiet is None
        else QuietHours(begins=f"{quiet.begins:%H:%M}", ends=f"{quiet.ends:%H:%M}", zone=quiet.zone),
        hold_high=found.hold_high,
        gather_medium_minutes=None if found.gather_medium is None else found.gather_medium.total_seconds() / 60,
        gather_low_minutes=None if found.gather_low is None else found.gather_low.total_seconds() / 60,
    )
