"""Commands about agents: agents, pause, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show

if TYPE_CHECKING:
    from banksman.shapes import Agent

Name = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")]


def agents(*, as_json: given.Json = False) -> None:
    """List the agents that workers bring, and which are paused."""
    with place.find().person() as banksman:
        found = banksman.agents()
    if as_json:
        show.as_json(found)
        return
    rows = [
        [agent.name, agent.version, show.moment(agent.seen_at), show.moment(agent.paused_at), agent.paused_by or ""]
        for agent in found
    ]
    show.table(["agent", "version", "announced", "paused", "by"], rows)


def pause(agent: Name, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Let no run of an agent start or resume. What is under way goes on to its end."""
    with place.find().person(as_email) as banksman:
        _tell(banksman.pause(agent), as_json=as_json)


def resume(agent: Name, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Let a paused agent's runs start again."""
    with place.find().person(as_email) as banksman:
        _tell(banksman.resume(agent), as_json=as_json)


def _tell(agent: Agent, *, as_json: bool) -> None:
    if as_json:
        show.as_json(agent)
        return
    by = show.prose(agent.paused_by or "")
    state = "is not paused" if agent.paused_at is None else f"is paused since {show.moment(agent.paused_at)}, by {by}"
    typer.echo(f"{show.prose(agent.name)} {state}.")
