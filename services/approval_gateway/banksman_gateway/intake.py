"""Bodies come in here: `application/json` alone, read strictly, so that no two readers see two different requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.exceptions import HTTPException

from banksman import digest
from banksman.digest import Json

MOST_BYTES = 1024 * 1024
MOST_BATCH_BYTES = 256 * 1024 * 1024
"""Of a batch as it is sent, and of what it inflates to."""
PRINTABLE = r"^[^\x00-\x1f\x7f]+$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=PRINTABLE)]
"""What somebody calls a thing: one line."""


class Body(BaseModel):
    """A body whose every field is known: a misspelt one is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Body):
    """No fields."""


class StrictRequest(Request):
    """A request whose JSON goes through `digest.parse`."""

    async def json(self) -> Json:
        """The body's value; duplicate keys, NaN, integers past 2^53-1 and the like are refused."""
        if not hasattr(self, "_json"):
            self._json = digest.parse(await self.body(), what="The body", limit=MOST_BYTES)
        return self._json


class StrictRoute(APIRoute):
    """A route of the JSON API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            if request.method in ("POST", "PUT") and not _says_json(request):
                raise HTTPException(415, "Send the body as application/json.")
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def most_bytes(method: str, path: str) -> int:
    """How large the body of a request may be."""
    return MOST_BATCH_BYTES if (method, path) == ("POST", "/v1/batches") else MOST_BYTES


class LinesRoute(APIRoute):
    """A route that takes one JSON object on each line."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-ndjson":
                raise HTTPException(415, "Send the body as application/x-ndjson: one run as JSON on each line.")
            return await handle(request)

        return strictly


def _says_json(request: Request) -> bool:
    said = request.headers.get("content-type")
    if said is None:
        return request.headers.get("content-length", "0") == "0" and ("transfer-encoding" not in request.headers)
    return said.partition(";")[0].strip().lower() == "application/json"
