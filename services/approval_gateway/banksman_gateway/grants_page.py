"""The page of standing grants: the live ones, with all that they cover, and a form to take each back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Response

from banksman import blocks, ids, render
from banksman.errors import NotFound
from banksman.ids import GrantId
from banksman.ledger import grants as rows
from banksman.records import StoredGrant
from banksman.render import Rendering
from banksman_gateway import auth, door, grants, html, sessions
from banksman_gateway.forms import Posted
from banksman_gateway.grants import GrantShape
from banksman_gateway.parts import Here, Parts
from banksman_gateway.sessions import Session, SignedIn

MOST = 20

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Card:
    """One grant, what must be equal as a request's page shows it, and whether the reader may take it back."""

    grant: GrantShape
    may_revoke: bool
    free: Sequence[str] = ()
    rendering: Rendering | None = None
    """Of the call that it covers, where it covers one call alone."""


@router.get("/grants")
def show_grants(here: Here, session: SignedIn, before: str = "") -> Response:
    """Live grants, newest first."""
    if auth.own_only(session.person) is not None:
        raise NotFound("There is nothing here.")
    with door.transaction(here) as conn:
        found = rows.listed(
            conn, before=GrantId(ids.read("gra", before)) if before else None, limit=MOST + 1, live=True
        )
    return html.page(
        "grants.html",
        **sessions.signed_in(here, session),
        cards=[_card(here, session, stored) for stored in found[:MOST]],
        older=ids.show("gra", found[MOST - 1].id) if len(found) > MOST else None,
    )


@router.post("/grants/{grant_id}/revoke")
def revoke_grant(grant_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """Take a grant back at once, by the person in the session."""
    form.must_be_of(here.link_keys, session.secret)
    with door.transaction(here) as conn:
        grants.revoke(conn, here.verifier, session.person, GrantId(ids.read("gra", grant_id)))
    return html.see("/grants")


def _card(here: Parts, session: Session, stored: StoredGrant) -> Card:
    grant = grants.shape(stored, here.verifier)
    may_revoke = grants.may_revoke(session.person, stored)
    if grant.arguments is None:
        return Card(grant, may_revoke)
    rendering = render.of(grants.action(stored, here.verifier), {})
    return Card(grant, may_revoke, [blocks.label(name) for name in grant.free], rendering)
