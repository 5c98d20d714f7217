"""Agents over HTTP: which there are, and pausing one: no segment of its runs starts until it is resumed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from banksman import ids
from banksman.errors import NotAllowed
from banksman.ledger import Connection, audit
from banksman.ledger import agents as rows
from banksman.records import Agent, Event, Person
from banksman_gateway import door, problems, shapes
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import StrictRoute

router = APIRouter(prefix="/v1/agents", tags=["agents"], route_class=StrictRoute, responses=problems.ALSO)

OPERATORS = frozenset({"operator", "admin"})

Name = Annotated[str, Path(max_length=200, examples=["refunds"])]


def pause(conn: Connection, name: str, person: Person | None, *, paused: bool) -> Agent:
    """The agent, paused or resumed by a person who may; as it is where it was so already."""
    if person is None or not person.roles & OPERATORS:
        raise NotAllowed("Only an operator or an administrator pauses and resumes agents.")
    rows.get(conn, name)
    changed = rows.pause(conn, name, person.id) if paused else rows.resume(conn, name)
    if changed:
        what = "agent.paused" if paused else "agent.resumed"
        audit.append(conn, Event(ids.show("per", person.id), what, body={"agent": name}))
    return rows.get(conn, name)


@router.get("", response_model=shapes.Page[shapes.Agent])
def list_agents(way: ToRead) -> Response:
    """Every agent that a worker has announced, with its tools and their gates, and who paused it."""
    with way.enter() as (conn, caller):
        caller.must("runs:read")
        found = rows.everyone(conn)
    page = shapes.Page[shapes.Agent](items=[shapes.agent(item) for item in found])
    return door.respond(200, door.to_bytes(page))


@router.post("/{name}/pause", response_model=shapes.Agent)
def pause_agent(name: Name, way: ToAct) -> Response:
    """Let no segment of this agent start. What runs goes on to its end; votes and new runs are accepted."""
    return _change(name, way, paused=True)


@router.post("/{name}/resume", response_model=shapes.Agent)
def resume_agent(name: Name, way: ToAct) -> Response:
    """Let the agent's runs start again, those first that waited longest."""
    return _change(name, way, paused=False)


def _change(name: str, way: door.Once, *, paused: bool) -> Response:
    with way.enter() as (conn, caller):
        caller.must("runs:cancel", "votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        agent = pause(conn, name, caller.person, paused=paused)
        return way.answer(conn, caller, 200, shapes.agent(agent))
