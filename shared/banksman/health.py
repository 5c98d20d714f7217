"""Over HTTP: how long ago the broker's hub, the event loop and the heartbeat last did something, and `/metrics`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from banksman import metrics

Ages = Callable[[], Mapping[str, float]]


class Health:
    """Answers 200 while every pulse is younger than `limit` seconds, 503 with the ages otherwise."""

    def __init__(self, host: str, port: int, pulses: Callable[[], Mapping[str, float]], *, limit: float) -> None:
        self._numbers = metrics.Pulses(pulses)
        metrics.REGISTRY.register(self._numbers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, metrics.text())
                    return
                ages = {name: round(time.monotonic() - at, 1) for name, at in pulses().items()}
                well = all(age < limit for age in ages.values())
                body = json.dumps({"alive": well, "ages": ages}).encode()
                self._answer(200 if well else 503, "application/json", body)

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
                """Probes are not worth a line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        metrics.REGISTRY.unregister(self._numbers)
