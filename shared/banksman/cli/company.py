"""Commands around a vote: take it back, write below a request, say that you look, or that you are away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show
from banksman.errors import InvalidInput

if TYPE_CHECKING:
    from banksman.shapes import Absence

Which = Annotated[str, typer.Argument(metavar="REQUEST")]


def withdraw(request_id: Which, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Take your vote back, as long as nobody has decided. You may vote again then."""
    [wanted] = given.read_ids([request_id], prefix="req")
    with place.find().person(as_email) as banksman:
        found = banksman.withdraw(wanted)
    if as_json:
        show.as_json(found)
    else:
        typer.echo(f"Your vote on {found.id} is taken back. It waits for {show.prose(found.quorum.waits_for)}.")


def remark(
    request_id: Which,
    text: Annotated[str, typer.Argument(help="What to ask, or to answer. Only people read it.")],
    *,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Ask whoever wants the run, or answer, below a request. The deadline stays."""
    [wanted] = given.read_ids([request_id], prefix="req")
    with place.find().person(as_email) as banksman:
        found = banksman.remark(wanted, text)
    if as_json:
        show.as_json(found)
    else:
        for one in found.remarks:
            typer.echo(f"{show.prose(one.by)}, {show.moment(one.at)}: {show.prose(one.text)}")


def reveal(
    request_id: Which,
    fingerprint: Annotated[
        str, typer.Argument(help="Of the secret, as its mask says it; without one the secrets are listed.")
    ] = "",
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why you have to see it; the audit log keeps it.")] = "",
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Show one covered secret of a request that you may decide. The audit log says that you have seen it."""
    [wanted] = given.read_ids([request_id], prefix="req")
    with place.find().person(as_email) as banksman:
        if not fingerprint:
            masked = banksman.request(wanted).masked
            if as_json:
                show.as_json(masked)
            else:
                rows = [[one.fingerprint, one.what, one.where, one.size] for one in masked]
                show.table(["fingerprint", "what", "where", "size"], rows)
            return
        if not reason:
            raise InvalidInput("Say with --reason why you have to see it; the audit log keeps it.")
        found = banksman.reveal(wanted, fingerprint, reason)
    if as_json:
        show.as_json(found)
    else:
        from banksman import letters

        typer.echo(letters.visible(found.value))


def look(
    request_id: Which,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="You look no longer.")] = False,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Tell the others that you look at a request, for two minutes. It keeps nobody from voting."""
    [wanted] = given.read_ids([request_id], prefix="req")
    with place.find().person(as_email) as banksman:
        found = banksman.stop_looking(wanted) if stop else banksman.look(wanted)
    if as_json:
        show.as_json(found)
    elif found.looking:
        for one in found.looking:
            typer.echo(f"{show.prose(one.by)} is looking, until {show.moment(one.until)}.")
    else:
        typer.echo("Nobody is looking.")


def away(
    stand_in: Annotated[
        str | None, typer.Argument(metavar="[EMAIL]", help="Who votes for your groups meanwhile.", show_default=False)
    ] = None,
    *,
    until: Annotated[str, typer.Option(help="Until when, as 2026-12-24T18:00 (UTC).", show_default=False)] = "",
    since: Annotated[str, typer.Option("--from", help="From when (UTC); now, if not given.", show_default=False)] = "",
    end: Annotated[str, typer.Option(metavar="ID", help="End this absence now.", show_default=False)] = "",
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Say that you are away and who stands in for you; without arguments, list who is or will be away."""
    with place.find().person(as_email) as banksman:
        if end:
            found = [banksman.end_absence(end)]
        elif stand_in is None:
            found = list(banksman.absences())
        elif not until:
            raise InvalidInput("Say until when you are away: --until 2026-12-24T18:00")
        else:
            from_at = _moment(since) if since else None
            found = [banksman.away(stand_in, _moment(until), from_at=from_at)]
    if as_json:
        show.as_json(found)
    elif not found:
        typer.echo("Nobody that concerns you is or will be away.")
    else:
        rows = [[one.id, one.person, one.stand_in, *_times(one)] for one in found]
        show.table(["absence", "away", "stands in", "from", "until", ""], rows)


def _times(one: Absence) -> list[str]:
    state = "ended" if one.ended_at is not None else "now" if one.live else "coming"
    return [show.moment(one.from_at), show.moment(one.until_at), state]


def _moment(text: str) -> datetime:
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is not a time such as 2026-12-24T18:00.") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)
