"""Agents over HTTP: which there are, and pausing one: no segment of its runs starts until it is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

from fastapi import APIRouter, Path, Response

from banksman import gates, ids
from banksman.digest import Json
from banksman.errors import NotAllowed
from banksman.gates import Gate
from banksman.ledger import Connection, audit
from banksman.ledger import agents as rows
from banksman.records import Agent, Event, Person
from banksman.standing_policy import Standing
from banksman_gateway import auth, door, policies, problems, shapes
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import StrictRoute
from banksman_gateway.parts import Parts

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


def gates_of(standing: Standing, agent: Agent) -> dict[str, Gate]:
    """Tool → what the policy in force makes of it."""
    tools = cast("Mapping[str, Mapping[str, Json]]", agent.tools)
    return {name: gates.announced(standing, agent.name, name, tool) for name, tool in sorted(tools.items())}


@router.get("", response_model=shapes.Page[shapes.Agent])
def list_agents(way: ToRead) -> Response:
    """Every agent that a worker has announced, and who paused it; its tools' gates for whoever may read the policy."""
    with way.enter() as (conn, caller):
        caller.must("runs:read")
        found = rows.everyone(conn)
        standing = _standing(conn, way.here, caller)
    page = shapes.Page[shapes.Agent](items=[_shape(item, standing) for item in found])
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
        return way.answer(conn, caller, 200, _shape(agent, _standing(conn, way.here, caller)))


def _standing(conn: Connection, here: Parts, caller: Caller) -> Standing | None:
    """The policy in force, for a caller who may read it."""
    may = caller.has("requests:read") and auth.own_only(caller.person) is None
    return policies.in_force(conn, here)[0] if may else None


def _shape(agent: Agent, standing: Standing | None) -> shapes.Agent:
    """Without gates where the policy is not for the caller to read: what the settings alone say would mislead."""
    tools = cast("Mapping[str, Mapping[str, Json]]", agent.tools)
    if standing is None:
        plain = {name: {key: tool[key] for key in tool if key not in _GATE} for name, tool in tools.items()}
        return shapes.agent(agent, plain)
    found = gates_of(standing, agent)
    return shapes.agent(agent, {name: {**tool, **found[name].as_json()} for name, tool in tools.items()})


_GATE = frozenset({"verdict", "tier", "rule", "because"})
