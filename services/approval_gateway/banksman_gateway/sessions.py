"""Browser sessions and the gateway's cookies. The database holds hashes of session ids, so reading it opens nothing."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from banksman.errors import NotSignedIn
from banksman.ids import PersonId
from banksman.ledger import Connection, keys
from banksman.records import Person
from banksman.settings import GatewaySettings
from banksman.signing import base64url, unbase64
from banksman_gateway import door, parts
from banksman_gateway.parts import Parts

IDLE = timedelta(minutes=60)
LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Session:
    """A person at a browser; `secret` is the cookie's value, which the forms' tokens are bound to."""

    person: Person
    secret: bytes = field(repr=False)


def start(conn: Connection, person: PersonId) -> str:
    """Nothing → a session; the cookie's value."""
    secret = secrets.token_bytes(32)
    keys.open_session(conn, hash_of(secret), person, lifetime=LIFETIME)
    return base64url(secret)


def end(conn: Connection, session: Session) -> None:
    """A session → over."""
    keys.end_session(conn, hash_of(session.secret))


def present(request: Request) -> Session | None:
    """Who is signed in at this browser, if anybody."""
    here = parts.of(request.app)
    secret = _secret(request)
    if secret is None:
        return None
    with door.transaction(here) as conn:
        person = keys.session(conn, hash_of(secret), idle=IDLE)
    return None if person is None else Session(person, secret)


def held(request: Request) -> bytes | None:
    """The hash of the session that this browser says it has, for whoever looks without keeping it alive."""
    secret = _secret(request)
    return None if secret is None else hash_of(secret)


def _secret(request: Request) -> bytes | None:
    try:
        return unbase64(cookie(request, parts.of(request.app).settings, "session") or "")
    except ValueError:
        return None


def signed_in(here: Parts, session: Session) -> dict[str, Any]:
    """What every page of somebody who is signed in is filled with."""
    return {"person": session.person, "form_token": here.link_keys.form_token(session.secret)}


def required(request: Request) -> Session:
    """The session, or `NotSignedIn`."""
    session = present(request)
    if session is None:
        raise NotSignedIn("Sign in first.")
    return session


def still(conn: Connection, session: Session) -> Person:
    """The person as they are now; `NotSignedIn` when the session has ended since the form began to arrive."""
    person = keys.lives(conn, hash_of(session.secret), idle=IDLE)
    if person is None:
        raise NotSignedIn("You have been signed out meanwhile, so nothing was changed. Sign in first.")
    return person


SignedIn = Annotated[Session, Depends(required)]
MaybeSignedIn = Annotated[Session | None, Depends(present)]


def cookie(request: Request, settings: GatewaySettings, use: str) -> str | None:
    """The value of one of our cookies."""
    return request.cookies.get(_name(settings, use))


def set_cookie(response: Response, settings: GatewaySettings, use: str, value: str, *, lifetime: timedelta) -> None:
    """Hand a cookie out: for this host alone, out of reach of scripts. Lax, because reviewers arrive from a mail."""
    response.set_cookie(
        _name(settings, use),
        value,
        max_age=int(lifetime.total_seconds()),
        path="/",
        secure=not settings.on_localhost,
        httponly=True,
        samesite="lax",
    )


def drop_cookie(response: Response, settings: GatewaySettings, use: str) -> None:
    """Take a cookie back."""
    response.delete_cookie(
        _name(settings, use), path="/", secure=not settings.on_localhost, httponly=True, samesite="lax"
    )


def _name(settings: GatewaySettings, use: str) -> str:
    return use if settings.on_localhost else f"__Host-{use}"


def hash_of(secret: bytes) -> bytes:
    """What the database holds of a session."""
    return hashlib.sha256(secret).digest()
