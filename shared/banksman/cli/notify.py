"""Commands about messages: `notify` for people's, `webhooks` for programs'."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from banksman.cli import given, place, show
from banksman.errors import BanksmanError, InvalidInput

if TYPE_CHECKING:
    from banksman.shapes import Endpoint, Hearing, Notice

_OVER = ("sent", "dead", "dropped", "failed")
_AT_ONCE = 1000
"""So many dead messages at most are sent once more by one question."""

notify = typer.Typer(
    help="What people are told: a test, your own preferences, and what was given up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
webhooks = typer.Typer(
    help="Where your own programs hear what happened, signed (Standard Webhooks). For administrators.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="As `banksman webhooks list` shows it.")]


@notify.command("test")
def send_test(
    *,
    to: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="To somebody else (operators).", show_default=False)
    ] = None,
    channel: Annotated[str | None, typer.Option(help="By one way only: email or apprise.", show_default=False)] = None,
    wait: Annotated[float, typer.Option(min=0, help="How many seconds to wait for what becomes of it.")] = 30,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Send a real message that says that it arrived, and tell what became of it."""
    with place.find().person(as_email) as banksman:
        found = banksman.send_test(to=to, channel=channel)
        until = time.monotonic() + wait
        while found.state not in _OVER and time.monotonic() < until:
            time.sleep(0.2)
            found = banksman.notice(found.id)
    if as_json:
        show.as_json(found)
    else:
        typer.echo(_became(found))
    if found.state != "sent":
        raise typer.Exit(1)


def _became(found: Notice) -> str:
    said = f"The test message to {show.prose(found.to)} by {found.channel}"
    match found.state:
        case "sent":
            return f"{said} was taken by the server there. Whether it arrives, only its reader can see."
        case "failed" | "dead":
            more = "It is tried again." if found.state == "failed" else "It is not tried again."
            return f"{said} failed: {show.prose(found.last_error or '')} {more}"
        case _:
            return f"{said} is still {found.state}: does a notifier run? See `banksman doctor`."


@notify.command()
def dead(*, as_email: given.As = None, as_json: given.Json = False) -> None:
    """List messages that were given up, newest first."""
    with place.find().person(as_email) as banksman:
        found = banksman.notices(state="dead", limit=200)
    if as_json:
        show.as_json(list(found))
        return
    show.table(
        ["notice", "kind", "to", "by", "about", "attempts", "last error"],
        [
            [
                item.id,
                item.kind,
                item.to,
                item.channel,
                item.request_id or "",
                str(item.attempts),
                item.last_error or "",
            ]
            for item in found
        ],
    )


@notify.command()
def resend(
    which: Annotated[
        list[str] | None, typer.Argument(metavar="[NOTICE]...", help="Dead notices.", show_default=False)
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is dead.")] = False,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Send dead messages once more. What nobody needs to know any more is not sent."""
    if bool(which) == everything:
        raise InvalidInput("Name the notices to send once more, or say --all.")
    sent = dict[str, None]()
    with place.find().person(as_email) as banksman:
        for notice in which or ():
            sent |= dict.fromkeys(banksman.resend(notice).notices)
        while everything:
            page, before = banksman.resend().notices, len(sent)
            sent |= dict.fromkeys(page)
            if len(page) < _AT_ONCE or len(sent) == before:  # what is refused for good is dead again at once
                break
    if as_json:
        show.as_json({"notices": [*sent]})
        return
    typer.echo(f"{len(sent)} {'message is' if len(sent) == 1 else 'messages are'} sent once more.")


@notify.command()
def preferences(
    *,
    email: Annotated[bool | None, typer.Option("--email/--no-email", show_default=False)] = None,
    apprise: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Another service, such as slack://…; may be repeated.", show_default=False),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget-apprise", help="Forget the URLs that are there.")] = False,
    quiet: Annotated[
        str | None, typer.Option(metavar="FROM-TO", help="Quiet hours like 22:00-07:00, or `none`.", show_default=False)
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="The time zone of quiet hours, such as Europe/Berlin.", show_default=False)
    ] = None,
    hold_high: Annotated[bool | None, typer.Option("--hold-high/--no-hold-high", show_default=False)] = None,
    medium: Annotated[
        str | None, typer.Option(metavar="MINUTES", help="Gather medium so long; `default`.", show_default=False)
    ] = None,
    low: Annotated[
        str | None, typer.Option(metavar="MINUTES", help="Gather low so long; `default`.", show_default=False)
    ] = None,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Show how you hear of what waits for you, and change what is given."""
    with place.find().person(as_email) as banksman:
        found = banksman.preferences()
        wanted: dict[str, Any] = {
            "email": found.email if email is None else email,
            "quiet": found.quiet if quiet is None and zone is None else _quiet(quiet, zone, found),
            "hold_high": found.hold_high if hold_high is None else hold_high,
            "gather_medium_minutes": _minutes(medium, found.gather_medium_minutes),
            "gather_low_minutes": _minutes(low, found.gather_low_minutes),
        }
        if apprise or forget:
            if found.apprise and not forget:
                raise InvalidInput("Your URLs cannot be read back: give all of them, with --forget-apprise.")
            wanted["apprise"] = apprise or []
        if any(word is not None for word in (email, quiet, zone, hold_high, medium, low)) or "apprise" in wanted:
            found = banksman.prefer(wanted)
    if as_json:
        show.as_json(found)
        return
    typer.echo(_hears(found))


def _quiet(hours: str | None, zone: str | None, found: Hearing) -> dict[str, str] | None:
    if hours == "none":
        return None
    kept = found.quiet or {}
    begins, _, ends = (hours or f"{kept.get('begins', '')}-{kept.get('ends', '')}").partition("-")
    if not begins or not ends:
        raise InvalidInput("Quiet hours are like --quiet 22:00-07:00 --zone Europe/Berlin.")
    return {"begins": begins.strip(), "ends": ends.strip(), "zone": zone or kept.get("zone", "UTC")}


def _minutes(word: str | None, kept: float | None) -> float | None:
    if word is None or word == "default":
        return kept if word is None else None
    try:
        minutes = float(word)
    except ValueError:
        minutes = math.inf
    if not math.isfinite(minutes):
        raise InvalidInput(f"{word[:20]!r} is no number of minutes.")
    return minutes


def _hears(found: Hearing) -> str:
    def gathered(minutes: float | None) -> str:
        return "as it is set up here" if minutes is None else f"{minutes:g} minutes" if minutes else "not at all"

    quiet = found.quiet
    hours = "none" if quiet is None else f"{quiet['begins']} to {quiet['ends']} in {show.prose(quiet['zone'])}"
    lines = [
        f"ways         {', '.join([*(['e-mail'] if found.email else []), *map(show.prose, found.apprise)])}",
        f"quiet hours  {hours}{', for tier high too' if found.hold_high else ''}",
        f"gathered     medium {gathered(found.gather_medium_minutes)}, low {gathered(found.gather_low_minutes)}",
    ]
    return "\n".join(lines)


@webhooks.command()
def add(
    url: Annotated[str, typer.Argument(help="An https address, at port 443 or 8443.")],
    *,
    event: Annotated[
        list[str] | None, typer.Option(help="Such as run.finished; may be repeated. All, if none.", show_default=False)
    ] = None,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Send webhooks to an address from now on, and print their secret, this once."""
    with place.find().person(as_email) as banksman:
        _with_secret(banksman.add_endpoint(url, events=event or ()), as_json=as_json)


@webhooks.command("list")
def list_endpoints(*, as_email: given.As = None, as_json: given.Json = False) -> None:
    """List endpoints, and whether they hear us."""
    with place.find().person(as_email) as banksman:
        found = banksman.endpoints()
    if as_json:
        show.as_json(list(found))
        return
    show.table(
        ["endpoint", "url", "events", "state", "dead", "by"],
        [
            [
                item.id,
                item.url,
                ",".join(item.events),
                f"{item.state}: {item.disabled_because}" if item.disabled_because else item.state,
                str(item.dead),
                item.created_by,
            ]
            for item in found
        ],
    )


@webhooks.command()
def disable(endpoint: EndpointId, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Send nothing more there until it is enabled."""
    _move(endpoint, "disable", as_email, as_json=as_json)


@webhooks.command()
def enable(endpoint: EndpointId, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Send there again, beginning with what it missed."""
    _move(endpoint, "enable", as_email, as_json=as_json)


@webhooks.command()
def remove(endpoint: EndpointId, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Forget an endpoint for good."""
    _move(endpoint, "remove", as_email, as_json=as_json)


@webhooks.command()
def rotate(endpoint: EndpointId, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Print a new secret, this once. For 24 hours the old one signs as well."""
    with place.find().person(as_email) as banksman:
        _with_secret(banksman.move_endpoint(endpoint, "rotate"), as_json=as_json)


@webhooks.command()
def deliveries(
    endpoint: EndpointId,
    *,
    state: Annotated[str | None, typer.Option(help="due, claimed, sent or dead.", show_default=False)] = None,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """List what was sent there or is to be, newest first."""
    with place.find().person(as_email) as banksman:
        found = banksman.deliveries(endpoint, state=state)
    if as_json:
        show.as_json(list(found))
        return
    show.table(
        ["delivery", "event", "about", "state", "attempts", "last error"],
        [
            [
                item.id,
                item.event,
                item.request_id or item.run_id or "",
                item.state,
                str(item.attempts),
                item.last_error or "",
            ]
            for item in found
        ],
    )


@webhooks.command()
def redeliver(
    endpoint: EndpointId,
    delivery: Annotated[str | None, typer.Argument(help="One delivery (dlv_…); all dead ones, if none.")] = None,
    *,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Send webhooks once more, under the ids that they had."""
    with place.find().person(as_email) as banksman:
        found = banksman.redeliver(endpoint, delivery)
    if as_json:
        show.as_json(found)
        return
    typer.echo(f"{found.deliveries} {'webhook is' if found.deliveries == 1 else 'webhooks are'} sent once more.")


def _move(endpoint: str, move: Literal["disable", "enable", "remove"], as_email: str | None, *, as_json: bool) -> None:
    with place.find().person(as_email) as banksman:
        found = banksman.move_endpoint(endpoint, move)
    if as_json:
        show.as_json(found)
        return
    typer.echo(f"{found.id} is {'removed' if move == 'remove' else found.state}.")


def _with_secret(found: Endpoint, *, as_json: bool) -> None:
    if found.secret is None:
        raise BanksmanError("The gateway told no secret.")
    if as_json:
        show.as_json(found)
        return
    typer.echo(found.secret)
    show.complain(f"{found.id} goes to {show.prose(found.url)}. Its secret is shown this once.")
