"""Personal tokens, for a person's terminal and scripts: asked for by address, made for the code that is mailed to it.

Whoever asks gets the same answer, and the token only where the code is typed in. A token acts as its person at tiers
low and medium; what it opens is narrower still (`scopes.OF_A_LOGIN`). Its text is in this one answer and nowhere else.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Request, Response
from pydantic import Field

from banksman import ids, scopes, tokens
from banksman.errors import InvalidInput
from banksman.ledger import audit, keys
from banksman.records import Event
from banksman_gateway import door, mailed_code, problems
from banksman_gateway.intake import Body, Name, StrictRoute
from banksman_gateway.parts import Here
from banksman_gateway.shapes import Shape

LIFETIME = timedelta(days=90)

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=StrictRoute, responses=problems.ALSO)


class Address(Body):
    """Whom the code is mailed to."""

    email: Annotated[str, Field(max_length=254)]


class Attempt(Shape):
    """To be sent back with the code: without it, the code is worth nothing."""

    attempt: str


class Typed(Body):
    """The code from the mail, and what the token is called in lists."""

    attempt: Annotated[str, Field(max_length=300)]
    code: Annotated[str, Field(max_length=40)]
    name: Name = "banksman login"


class Token(Shape):
    """A new token; nobody can read it again."""

    token: str
    expires_at: datetime
    person: str


@router.post("", response_model=Attempt)
def ask(asked: Address, here: Here, request: Request, later: BackgroundTasks) -> Response:
    """Mail a code of 8 digits to the address, if somebody has it; the answer does not tell. Needs no credential."""
    attempt = mailed_code.send(here, "attempt", asked.email, request, later)
    response = door.respond(200, door.to_bytes(Attempt(attempt=attempt)))
    response.background = later
    return response


@router.post("/redeem", status_code=201, response_model=Token)
def redeem(typed: Typed, here: Here) -> Response:
    """The typed code → a token, once. Five tries, ten minutes. Needs no credential."""
    notice = mailed_code.proven(here, "attempt", typed.attempt, typed.code)
    if notice is not None:
        with door.transaction(here) as conn:
            person = mailed_code.spend(conn, notice)
            if person is not None:
                minted = tokens.mint("tok")
                key_id = keys.store(
                    conn,
                    minted,
                    kind="tok",
                    name=typed.name,
                    scopes=scopes.OF_A_LOGIN,
                    person=person.id,
                    lifetime=LIFETIME,
                )
                made = keys.get(conn, key_id)
                event = Event(ids.show("per", person.id), "token.made", body={"key": ids.show("key", key_id)})
                audit.append(conn, event)
                token = Token(token=minted.text, expires_at=made.expires_at, person=person.email)
                return Response(door.to_bytes(token), 201, media_type="application/json")
    raise InvalidInput("That code does not fit, or it counts no more. Type it again, or ask for a new one.")
