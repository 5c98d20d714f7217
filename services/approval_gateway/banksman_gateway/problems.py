"""Errors as answers: one map from `banksman.errors` to RFC 9457 problems, for every endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from banksman import errors, logs
from banksman.digest import Json
from banksman_gateway import shapes

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:banksman:problem:"

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, in the words of RFC 9457. `kind` ends the type's URI and never changes its meaning."""

    status: int
    kind: str
    title: str
    detail: str
    members: Mapping[str, Json] = field(default_factory=dict[str, Json])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_json(self) -> dict[str, Json]:
        """The problem's members."""
        return {
            "type": _TYPE + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }


@dataclass(frozen=True, slots=True)
class _Entry:
    status: int
    kind: str
    title: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


_MAP: dict[type[errors.BanksmanError], _Entry] = {
    errors.InvalidInput: _Entry(422, "invalid-input", "The request cannot be used"),
    errors.NotFound: _Entry(404, "not-found", "There is no such thing, or it is not yours to see"),
    errors.Gone: _Entry(410, "gone", "It was there, and was removed"),
    errors.NotSignedIn: _Entry(401, "not-signed-in", "No valid credential", {"WWW-Authenticate": "Bearer"}),
    errors.NotAllowed: _Entry(403, "not-allowed", "You may not do this"),
    errors.AlreadyDecided: _Entry(409, "already-decided", "Somebody or something settled it first"),
    errors.AlreadyVoted: _Entry(409, "already-voted", "One person has one vote for each revision"),
    errors.Changed: _Entry(409, "changed", "What was shown is no longer what is asked"),
    errors.Conflict: _Entry(409, "conflict", "The world moved on"),
    errors.NotGenuine: _Entry(409, "not-genuine", "What is stored does not verify"),
    errors.Crossed: _Entry(503, "crossed", "Somebody else changed the same runs; try again", {"Retry-After": "1"}),
    errors.NotHere: _Entry(503, "not-here", "This process lacks what another one may have", {"Retry-After": "2"}),
    errors.Unavailable: _Entry(503, "unavailable", "PostgreSQL cannot be reached", {"Retry-After": "2"}),
}
_BROKEN = _Entry(500, "internal-error", "Something broke in the gateway")
_HTTP = {
    400: _Entry(400, "malformed", "The request cannot be read"),
    404: _Entry(404, "not-found", "There is nothing here"),
    405: _Entry(405, "method-not-allowed", "This method is not for this address"),
    413: _Entry(413, "too-large", "The body is too large"),
    415: _Entry(415, "not-json", "The body must be application/json"),
    421: _Entry(421, "misdirected", "This gateway does not answer to that host name"),
}

_AS_PROBLEM = {MEDIA_TYPE: {"schema": shapes.Problem.model_json_schema()}}
ALSO: dict[int | str, dict[str, Any]] = {
    "4XX": {"content": _AS_PROBLEM, "description": "What the caller can mend, as a problem (RFC 9457)."},
    "5XX": {"content": _AS_PROBLEM, "description": "What the caller can only wait for."},
}
"""For a router's `responses`: the errors that every endpoint shares."""


def of(error: Exception) -> Problem:
    """The problem that an error is answered with; what is not ours says nothing of its inside."""
    match error:
        case errors.BanksmanError():
            entry = next((_MAP[kind] for kind in type(error).__mro__ if kind in _MAP), _BROKEN)
            members: dict[str, Json] = {}
            if isinstance(error, errors.Conflict):
                members["current"] = dict(error.current)
            detail = str(error) if entry.status < 500 else entry.title + "."
            return Problem(entry.status, entry.kind, entry.title, detail, members, entry.headers)
        case RequestValidationError():
            wrong = [_field(item) for item in error.errors()]
            detail = "; ".join(f"{item['field']}: {item['message']}" for item in wrong[:5])
            return Problem(422, "invalid-input", "The request cannot be used", detail, {"errors": wrong})
        case HTTPException():
            entry = _HTTP.get(error.status_code, _Entry(error.status_code, "http", "The request failed"))
            told = error.__cause__ if isinstance(error.__cause__, errors.InvalidInput) else error.detail
            return Problem(entry.status, entry.kind, entry.title, str(told), headers=error.headers or {})
        case _:
            return Problem(500, _BROKEN.kind, _BROKEN.title, "It has been logged under the request's id.")


def answer(problem: Problem) -> Response:
    """A problem as a response."""
    return Response(
        json.dumps(problem.as_json(), ensure_ascii=False, default=str).encode(),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=dict(problem.headers),
    )


Page = Callable[[Request, Problem], Response]


def install(app: FastAPI, *, page: Page | None = None) -> None:
    """Answer every error of the application with its problem; `page` shows those of the HTML addresses."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = of(error)
        if isinstance(error, errors.NotGenuine) or problem.status == 500:
            log.error("Refused.", kind=problem.kind, detail=str(error)[:500])
        if page is not None and not _is_api(request.url.path):
            return page(request, problem)
        return answer(problem)

    for kind in (errors.BanksmanError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)


def _is_api(path: str) -> bool:
    return path.startswith(("/v1/", "/internal/")) or path in ("/healthz", "/readyz", "/metrics")


def _field(item: Any) -> dict[str, str]:
    where = ".".join(str(part) for part in item["loc"])
    return {"field": where, "message": str(item["msg"]).removeprefix("Value error, ")}
