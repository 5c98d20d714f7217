"""What commands print: tables, cards and JSON. No text from agents or people reaches a terminal as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from banksman.shapes import Request, Run
    from banksman.stream import Event


def as_json(value: BaseModel | Sequence[BaseModel] | Any) -> None:
    """One JSON document on a line of its own."""
    typer.echo(json.dumps(_plain(value)))


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, never cut: ids are meant to be copied."""
    cells = [[prose(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [names, *cells]) for column in range(len(names))]
    for number, row in enumerate([names, *cells]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        typer.secho(line, bold=number == 0)


def run(found: Run) -> None:
    """A run as a card."""
    facts = [
        ("run", found.id),
        ("agent", found.agent),
        ("status", found.status + (", to be cancelled" if found.cancel_requested and not found.over else "")),
        ("requester", found.requester),
        ("parent", found.parent_id or ""),
        ("created", moment(found.created_at)),
        ("finished", moment(found.finished_at)),
        ("tags", ", ".join(found.tags)),
        ("prompt", found.prompt),
        ("error", found.error or ""),
    ]
    for name, value in facts:
        if value:
            typer.echo(f"{name:<10} {_indented(value)}")
    if found.output is not None:
        typer.echo(f"{'output':<10} {_indented(output(found.output))}")


def request(found: Request) -> None:
    """A request as a card: exactly what the digest covers, then what holds it."""
    typer.secho(f"{found.id}  {found.kind}, tier {found.tier}, {found.state}", bold=True)
    typer.echo(f"run {found.run_id}, agent {prose(found.agent)}, asked for by {prose(found.requester)}")
    typer.echo("")
    typer.echo(found.rendered.rstrip("\n"))
    typer.echo("")
    if found.context.why_again:
        typer.echo(f"Asked again: {_indented(found.context.why_again)}")
        was: Any = found.context.before or {}
        if was.get("arguments", found.arguments) != found.arguments:
            typer.echo(f"Approved before with: {_indented(json.dumps(was['arguments']))}")
    if found.context.said:
        typer.echo(f"The agent says (unverified): {_indented(found.context.said)}")
    because, rule = (str(found.requirement.get("because", "")), str(found.requirement.get("rule", "")))
    if because:
        typer.echo(f"Held by the rule {prose(rule)}: {prose(because)}")
    silence = found.requirement.get("on_expiry", "deny")
    after = {"stop": "the run ends", "extend": "it waits as long again"}.get(str(silence), "the call is not made")
    if found.state == "open":
        _standing(found)
        typer.echo(f"It waits until {moment(found.expires_at)}; if nobody decides, {after}.")
    if found.state == "expired":
        typer.echo(f"Nobody decided by {moment(found.expires_at)}. It was not denied.")
    if found.state == "cancelled":
        typer.echo("Its run ended before anybody decided.")
    if found.extended:
        often = {1: "once", 2: "twice"}.get(found.extended, f"{found.extended} times")
        typer.echo(f"Its deadline has moved on {often}, because nobody decided.")
    if found.unreachable_since and found.state == "open":
        typer.echo(
            f"Since {moment(found.unreachable_since)} nobody, or too few people, may decide it: give somebody the role"
            " or group that it names (banksman reviewers), or cancel the run."
        )
    if found.siblings:
        settled = sum(state != "open" for state in [found.state, *(item.state for item in found.siblings)])
        typer.echo(f"{settled} of {len(found.siblings) + 1} requests of this pause are decided.")
    _said(found)
    typer.secho(f"revision {found.revision}, digest {found.digest}", dim=True)


def _standing(found: Request) -> None:
    """Who has agreed, what is missing, who may say it, and who looks."""
    stands = found.quorum
    if stands.agreed:
        typer.echo(f"Agreed: {prose(', '.join(stands.agreed))}.")
    typer.echo(f"It waits for {prose(stands.waits_for)}. May decide: {prose(', '.join(stands.may_decide))}.")
    for rung in stands.called:
        typer.echo(f"Called in since {moment(rung.at)}: {prose(', '.join(rung.groups))}.")
    for one in found.looking:
        typer.echo(f"{prose(one.by)} is looking at it.")


def _said(found: Request) -> None:
    """Votes and remarks."""
    for vote in found.votes:
        said = f": {_indented(vote.reason)}" if vote.reason else ""
        void = f" (does not count: it {prose(vote.void)})" if vote.void else ""
        away = f", for {prose(' and '.join(vote.instead_of))}, who is away," if vote.instead_of else ""
        typer.echo(f"{prose(vote.by)}{away} said {vote.verdict} to revision {vote.revision}{void}{said}")
    for remark in found.remarks:
        typer.echo(f"{prose(remark.by)} wrote: {_indented(remark.text)}")


def event(found: Event) -> None:
    """One line of what happens."""
    data = found.data
    detail: dict[str, Any] = data.get("detail") or {}
    words = "  ".join(f"{name}={_short(value)}" for name, value in sorted(detail.items()))
    request_id = data.get("request_id") or ""
    at = _clock(str(data.get("at", "")))
    typer.echo(prose(f"{at}  {found.name:<20} {request_id}  {words}".rstrip()))


def _clock(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone():%H:%M:%S}"
    except ValueError:
        return ""


def output(value: object) -> str:
    """What an agent answered, as text."""
    return value if isinstance(value, str) else json.dumps(value, indent=2)


def prose(text: str) -> str:
    """Text from elsewhere that cannot move the cursor, hide or reorder anything; secrets in it are covered."""
    from banksman import letters, masks

    return letters.prose(masks.concealed(text))


def argument(name: str, value: object) -> str:
    """A named JSON value on one line, with a number for every letter that could pass for another."""
    from banksman import blocks

    return f"{blocks.label(name)}: {blocks.dumped(value)}"


def moment(at: datetime | None) -> str:
    """A time as people read it here."""
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M}"


def until(at: datetime) -> str:
    """How much time is left."""
    minutes = int((at - datetime.now(UTC)).total_seconds() // 60)
    if minutes < 0:
        return "over"
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {minutes} min"


def complain(text: str) -> None:
    """A sentence on standard error."""
    typer.echo(prose(text), file=sys.stderr)


def _indented(text: str) -> str:
    return prose(text).replace("\n", "\n" + " " * 11)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else value
