"""The way into the ledger for one call of the JSON API: its transaction, its caller, and its answer kept once.

The credential is checked in the transaction that acts on it. Under an Idempotency-Key the answer is written in that
same transaction too: a client that repeats itself for a day is told the same, and nothing happens twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from banksman import digest, ledger
from banksman.errors import Crossed, Gone, InvalidInput, NotFound, Unavailable
from banksman.ledger import Connection, answers, keys, retention
from banksman_gateway import auth, parts
from banksman_gateway.auth import Caller
from banksman_gateway.parts import Parts

_MINUTE = 60.0
_REST_SECONDS = 1.0

_bearer = HTTPBearer(auto_error=False, description="An API key or a personal token.")


class Door:
    """One call on its way in."""

    def __init__(self, here: Parts, request: Request) -> None:
        self.here = here
        self._authorization = request.headers.get("authorization")

    @contextmanager
    def enter(self) -> Generator[tuple[Connection, Caller]]:
        """A transaction and who acts in it."""
        with transaction(self.here) as conn:
            caller = self.identify(conn)
            now = time.monotonic()
            if now - self.here.used.get(caller.key.id, -_MINUTE) >= _MINUTE:
                self.here.used[caller.key.id] = now
                keys.used(conn, caller.key.id)
            yield conn, caller

    def identify(self, conn: Connection) -> Caller:
        """Who acts, as the database has it now."""
        return auth.identify(conn, self._authorization)


class Once(Door):
    """A POST on its way in."""

    def __init__(self, here: Parts, request: Request, body: Any, key: str | None) -> None:
        super().__init__(here, request)
        self._key = key
        self._asked = (request.method, request.url.path, body)

    def about(self, body: Any) -> None:
        """What the body was, where this endpoint did not read it as JSON."""
        self._asked = (*self._asked[:2], body)

    def replay(self, conn: Connection, caller: Caller) -> Response | None:
        """The answer that this Idempotency-Key stands for already, or None after reserving the key."""
        if self._key is None:
            return None
        method, path, body = self._asked
        text = f"{method}\n{path}\n".encode() + digest.canonical(body)
        fingerprint = hashlib.sha256(text).digest()
        kept = answers.reserve(conn, caller.actor, self._key, fingerprint)
        if kept is None:
            return None
        if kept[0] != fingerprint:
            raise InvalidInput(f"The Idempotency-Key {self._key!r} was used for another request. Use a new one.")
        answered = respond(kept[1], kept[2])
        answered.headers["Idempotency-Replayed"] = "true"
        return answered

    def answer(self, conn: Connection, caller: Caller, status: int, shape: BaseModel) -> Response:
        """The answer to send after the commit, kept under the Idempotency-Key if there is one."""
        body = to_bytes(shape)
        if self._key is not None:
            answers.keep(conn, caller.actor, self._key, status=status, body=body)
        return respond(status, body)


@contextmanager
def transaction(here: Parts) -> Generator[Connection]:
    """One transaction. When a connection turns out dead, the pool's others are tested, so that one restart of
    PostgreSQL costs one answer and not one for each connection.
    """
    began = time.monotonic()
    if began < here.outage.until:
        raise Unavailable("PostgreSQL cannot be reached.")
    try:
        with ledger.transaction(here.pool) as conn:
            here.secrecy.begin(conn)
            try:
                yield conn
            except NotFound as error:
                said = None if error.what is None else retention.gone(conn, error.what)
                if said is None:
                    raise
                raise Gone(said) from error
    except Crossed:
        raise
    except Unavailable:
        if time.monotonic() - began > _REST_SECONDS:
            here.outage.until = time.monotonic() + _REST_SECONDS
        here.pool.check()
        raise


def to_bytes(shape: BaseModel) -> bytes:
    """A shape as JSON."""
    return shape.__pydantic_serializer__.to_json(shape)


_PLACES = {"bat": "batches", "per": "people", "key": "keys"}


def respond(status: int, body: bytes) -> Response:
    """JSON as a response; what was created says where it is."""
    response = Response(body, status_code=status, media_type="application/json")
    if status == 201:
        made = json.loads(body)["id"]
        response.headers["Location"] = f"/v1/{_PLACES.get(made[:3], 'runs')}/{made}"
    return response


async def _door(request: Request, _: Annotated[Any, Security(_bearer)]) -> Door:
    return Door(parts.of(request.app), request)


_Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="Repeat a request under the same key, and it happens once. Kept for 24 hours.",
    ),
]


async def _once(request: Request, _: Annotated[Any, Security(_bearer)], idempotency_key: _Key = None) -> Once:
    body = await request.json() if await request.body() else None
    return Once(parts.of(request.app), request, body, idempotency_key)


async def _stream(request: Request, _: Annotated[Any, Security(_bearer)], idempotency_key: _Key = None) -> Once:
    return Once(parts.of(request.app), request, None, idempotency_key)


ToRead = Annotated[Door, Depends(_door)]
ToAct = Annotated[Once, Depends(_once)]
ToStream = Annotated[Once, Depends(_stream)]
"""To act on a body that the endpoint takes in itself, and then says what it was (`Once.about`)."""
