"""The page of agents, with a form to pause or resume each."""

from __future__ import annotations

from fastapi import APIRouter, Response

from banksman.errors import NotFound
from banksman.ledger import agents as rows
from banksman_gateway import agents, auth, door, html, policies, sessions
from banksman_gateway.forms import Posted
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

router = APIRouter(include_in_schema=False)


@router.get("/agents")
def show_agents(here: Here, session: SignedIn) -> Response:
    """Which agents there are, which are paused and by whom; and what the policy makes of their tools."""
    with door.transaction(here) as conn:
        found = rows.everyone(conn)
        standing = policies.in_force(conn, here)[0] if auth.own_only(session.person) is None else None
    return html.page(
        "agents.html",
        **sessions.signed_in(here, session),
        agents=found,
        gates={} if standing is None else {agent.name: agents.gates_of(standing, agent) for agent in found},
        may_pause=bool(session.person.roles & agents.OPERATORS),
    )


@router.post("/agents/{name}/{move}")
def pause_or_resume(name: str, move: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """`pause` or `resume`, by the person in the session."""
    form.must_be_of(here.link_keys, session.secret)
    if move not in ("pause", "resume"):
        raise NotFound("There is nothing here.")
    with door.transaction(here) as conn:
        agents.pause(conn, name, session.person, paused=move == "pause")
    return html.see("/agents")
