"""A receiver of traces (OTLP over HTTP) on loopback: what the services say, as a collector hears it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Span:
    """One span, with ids in hex."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: Sequence[tuple[str, str]]
    attributes: dict[str, str]


class Receiver:
    """Listens until it is closed, and keeps everything."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        heard = self._heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def settings(self) -> dict[str, str]:
        """What a stack's environment says to be heard here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def of_run(self, run_id: str) -> list[Span]:
        """The spans of the trace that a run's spans are in."""
        traces = {span.trace for span in self.spans if span.attributes.get("banksman.run") == run_id}
        return [span for span in self.spans if span.trace in traces]

    def _heard(self, body: bytes) -> None:
        said: Any = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resource in said.resource_spans:
            facts = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_span(facts["service.name"], span) for span in scope.spans]


def _span(service: str, said: Any) -> Span:
    return Span(
        service,
        said.name,
        said.trace_id.hex(),
        said.span_id.hex(),
        said.parent_span_id.hex(),
        [(link.trace_id.hex(), link.span_id.hex()) for link in said.links],
        {item.key: item.value.string_value for item in said.attributes},
    )
