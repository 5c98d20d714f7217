"""What surrounds every answer: its request id, the security headers, the host check, the size limit, the log line.

One plain ASGI middleware, outermost, so that errors, redirects and static files go out in it too. The log names the
route's template and never the path: paths of mailed links are secrets.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from banksman import ids, logs
from banksman.settings import GatewaySettings
from banksman_gateway import intake, problems

CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Robots-Tag": "noindex",
}
_PROBES = ("/healthz", "/readyz", "/metrics")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

log = logs.get("banksman_gateway.access")


class Envelope:
    """The outermost middleware. A header that an endpoint sets itself is left as it is."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        url = urlsplit(settings.public_url)
        self._hosts = {url.netloc.lower(), (url.hostname or "").lower()}
        self._loopback = settings.on_localhost
        self._headers = dict(_HEADERS)
        if not settings.on_localhost:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request in its envelope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = f"{ids.new().hex}"
        status = 0

        async def send_sealed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = request_id
            await send(message)

        structlog.contextvars.bind_contextvars(request=request_id)
        try:
            await self._answer(scope, _limited(receive, intake.most_bytes(scope["method"], scope["path"])), send_sealed)
        except Exception as error:
            log.exception("An endpoint broke.", route=_route(scope))
            if status:
                raise
            await problems.answer(problems.of(error))(scope, receive, send_sealed)
        finally:
            _note(scope, status, began)
            structlog.contextvars.unbind_contextvars("request")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refused: HTTPException | None = None
        most = intake.most_bytes(scope["method"], scope["path"])
        if not self._is_ours(headers.get("host", ""), scope["path"]):
            refused = HTTPException(421, "Use the address that this gateway is published under.")
        elif (said := headers.get("content-length", "0")) and not (said.isdecimal() and int(said) <= most):
            refused = _too_large(most)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await _drain(receive)
            await problems.answer(problems.of(refused))(scope, receive, send)

    def _is_ours(self, host: str, path: str) -> bool:
        """Whether the host is the published one. Probes and the notifier come by other names, and carry no cookies."""
        if path in _PROBES or path.startswith("/internal/"):
            return True
        host = host.lower()
        return host in self._hosts or (self._loopback and host.rpartition(":")[0] in _LOOPBACK)


_MOST_DRAINED = 64 * intake.MOST_BYTES


def _limited(receive: Receive, most: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _too_large(most)
        return message

    return counted


async def _drain(receive: Receive) -> None:
    """Take in a refused body up to a bound: a connection closed on unread bytes resets before the answer is read."""
    left = _MOST_DRAINED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"A body may have {most:,} bytes.")


def _note(scope: Scope, status: int, began: float) -> None:
    if scope["path"] in _PROBES and status == 200:
        return
    log.info(
        "answered",
        method=scope["method"],
        route=_route(scope),
        status=status,
        ms=round((time.perf_counter() - began) * 1000, 1),
    )


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "-")
