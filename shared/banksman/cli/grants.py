"""Commands about standing grants: list, create, revoke."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show

if TYPE_CHECKING:
    from banksman.client import Client
    from banksman.shapes import Grant

grants = typer.Typer(help="Let approved calls be made again without asking, and take that back.", no_args_is_help=True)


@grants.command("list")
def list_grants(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those too that are used up, over or revoked.")] = False,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Print the live grants, newest first: what each covers, how often it was used, until when, and who gave it."""
    with place.find().person(as_email) as banksman:
        found = list(_pages(banksman, live=not everything))
    if as_json:
        show.as_json(found)
        return
    if not found:
        typer.echo("There is no standing grant." if everything else "No standing grant is live.")
    for grant in found:
        _show(grant)


@grants.command()
def create(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="An approval of tier low.")],
    *,
    most: Annotated[int, typer.Option(metavar="N", help="So many calls, at most 1,000.")],
    lasts: Annotated[str, typer.Option(metavar="DURATION", help="So long, as 90m or 2d; at most 7d.")] = "8h",
    free: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An argument that may differ; may be given often.", show_default=False),
    ] = None,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Let the call of a request that was approved at tier low be made again without asking."""
    [wanted] = given.read_ids([request_id], prefix="req")
    with place.find().person(as_email) as banksman:
        made = banksman.grant(wanted, most, lasts=lasts, free=free or ())
    _tell(made, as_json=as_json)


@grants.command()
def revoke(
    grant_id: Annotated[str, typer.Argument(metavar="GRANT")], *, as_email: given.As = None, as_json: given.Json = False
) -> None:
    """Take a grant back at once. Its owner may, and every operator and administrator."""
    [wanted] = given.read_ids([grant_id], prefix="gra")
    with place.find().person(as_email) as banksman:
        found = banksman.revoke_grant(wanted)
    _tell(found, as_json=as_json)


def _pages(banksman: Client, *, live: bool) -> Iterator[Grant]:
    page = banksman.grants(live=live, limit=200)
    yield from page.items
    while page.next_cursor is not None:
        page = banksman.grants(live=live, limit=200, cursor=page.next_cursor)
        yield from page.items


def _tell(grant: Grant, *, as_json: bool) -> None:
    if as_json:
        show.as_json(grant)
    else:
        _show(grant)


def _show(grant: Grant) -> None:
    """A grant as a card; what must be equal is exact JSON, in which nothing can hide."""
    from banksman import blocks

    typer.secho(f"{grant.id}  {grant.state}, used {grant.used} of {grant.most} times", bold=True)
    facts = [
        ("tool", grant.tool),
        ("agent", f"{grant.agent}, version {grant.agent_version}" if grant.agent_version else grant.agent),
        ("requester", grant.requester or ""),
        ("batch", grant.batch_id or ""),
        ("until", show.moment(grant.expires_at)),
        ("given by", f"{grant.owner}, {show.moment(grant.created_at)}"),
        ("after", grant.request_id or ""),
        ("revoked", show.moment(grant.revoked_at)),
        ("free", ", ".join(map(blocks.label, grant.free))),
    ]
    for name, value in facts:
        if value:
            typer.echo(f"  {name:<10} {show.prose(value)}")
    for kind, values in (("equal", grant.arguments), ("file", grant.operands)):
        for name, value in sorted((values or {}).items()):
            typer.echo(f"  {kind:<10} {show.argument(name, value)}")
