"""The page of the policy: the rules in force, and who uploaded which version when. It changes nothing."""

from __future__ import annotations

from fastapi import APIRouter, Response

from banksman.errors import NotFound
from banksman.ledger import policies as rows
from banksman.ledger import rehearsal
from banksman_gateway import auth, door, drafts, html, policies, sessions
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

MOST = 20

router = APIRouter(include_in_schema=False)


@router.get("/policy")
def show_policy(here: Here, session: SignedIn) -> Response:
    """What is in force, rule by rule and as text."""
    if auth.own_only(session.person) is not None:
        raise NotFound("There is nothing here.")
    with door.transaction(here) as conn:
        standing, shape = policies.in_force(conn, here)
        versions = rows.versions(conn, before=None, limit=MOST)
        offered = drafts.offered(conn, here, session.person)
        since = rehearsal.since(conn, drafts.BACK)
    return html.page(
        "policy.html",
        **sessions.signed_in(here, session),
        policy=shape,
        rules=() if standing.rules is None else standing.rules.rules,
        versions=versions,
        drafts=[drafts.rehearsed(here, streak, text, since) for streak, text in offered],
    )
