"""Traces: one for each run, from its submission through segments, votes and calls to its end, over all services.

Ids are worked out, not handed on: the trace follows from the run's id, and the spans that others point at (submission,
segment, decision) from what they are about. So messages carry nothing more, no row has a column for it, and a run that
waits for days joins its own trace when it goes on; each segment *links* to the one before.

Nothing of OpenTelemetry is imported until `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) asks for traces; then
the SDK's own variables count. Spans say ids, names and times. What an exception says is left out of them, as it may
quote arguments.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from banksman import ids
from banksman.errors import ConfigurationError
from banksman.ids import RequestId, RunId

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext, Tracer

Place = tuple[RunId, str]
"""A span that others point at: of which run, and what it is about."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_wanted: ContextVar[tuple[int, int] | None] = ContextVar("wanted", default=None)
_tracing: _Tracing | None = None


def submission(run_id: RunId) -> Place:
    """The root of a run's trace."""
    return run_id, "submission"


def segment(run_id: RunId, number: int) -> Place:
    """The first attempt at a segment."""
    return run_id, f"segment {number}"


def decision(run_id: RunId, request_id: RequestId) -> Place:
    """The vote that settled a request."""
    return run_id, f"decision {request_id.hex}"


def configure(service: str, environ: Mapping[str, str]) -> TracerProvider | None:
    """Trace from now on, if the environment says where to; what the agent library is to trace with."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and what makes them is not installed:"
            " pip install 'banksman[tracing]', or unset it."
        ) from None
    return begin(service, OTLPSpanExporter())


def begin(service: str, exporter: SpanExporter) -> TracerProvider:
    """Trace from now on, to this exporter."""
    global _tracing  # noqa: PLW0603  a process is traced or not
    _tracing = _Tracing(service, exporter)
    return _tracing.provider


def end() -> None:
    """Hand over what was traced, and trace no more."""
    global _tracing  # noqa: PLW0603
    if _tracing is not None:
        _tracing.provider.shutdown()
        _tracing = None


@contextmanager
def span(
    name: str, run_id: RunId | None, *, at: Place | None = None, links: Sequence[Place] = (), **facts: str | int | None
) -> Generator[dict[str, str | int | None]]:
    """The length of the block is a span of this run; what is put into the dictionary that it gets is said as well.

    It stands below the span that it happens in, if that is of the same run; else below the submission.
    """
    if _tracing is None or run_id is None:
        yield facts
        return
    with _tracing.span(name, run_id, at, links) as made:
        try:
            yield facts
        finally:
            made.set_attributes(_said(facts))


def record(
    name: str, run_id: RunId, began: float, *, at: Place | None = None, links: Sequence[Place] = (), **facts: str | int
) -> None:
    """A span of this run that began at this `time.time()` and ends now."""
    if _tracing is not None:
        made = _tracing.start(name, run_id, at, links, began=int(began * 1e9))
        made.set_attributes(_said(facts))
        made.end()


def _said(facts: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {f"banksman.{name}": value for name, value in facts.items() if value is not None}


class _Tracing:
    def __init__(self, service: str, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        class Ids(RandomIdGenerator):
            """Those that were asked for, once; else random ones."""

            def generate_trace_id(self) -> int:
                wanted = _wanted.get()
                return super().generate_trace_id() if wanted is None else wanted[0]

            def generate_span_id(self) -> int:
                wanted = _wanted.get()
                _wanted.set(None)
                return super().generate_span_id() if wanted is None or not wanted[1] else wanted[1]

        resource = Resource.create({"service.name": service})
        self.provider = TracerProvider(resource=resource, id_generator=Ids())
        self.provider.add_span_processor(BatchSpanProcessor(_discreet(exporter)))
        self._tracer: Tracer = self.provider.get_tracer("banksman")

    @contextmanager
    def span(self, name: str, run_id: RunId, at: Place | None, links: Sequence[Place]) -> Generator[Any]:
        from opentelemetry import trace

        made = self.start(name, run_id, at, links)
        with trace.use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False) as current:
            yield current

    def start(
        self, name: str, run_id: RunId, at: Place | None, links: Sequence[Place], *, began: int | None = None
    ) -> Any:
        from opentelemetry import trace
        from opentelemetry.context import Context

        trace_id = _number(run_id, "trace", 16)
        above = trace.get_current_span().get_span_context()
        if at == submission(run_id):
            context = Context()  # a root: its ids are the ones that are wanted
        elif above.is_valid and above.trace_id == trace_id:
            context = trace.set_span_in_context(trace.get_current_span())
        else:
            context = trace.set_span_in_context(trace.NonRecordingSpan(self._context(submission(run_id))), Context())
        _wanted.set((trace_id, 0 if at is None else _number(*at, 8)))
        try:
            return self._tracer.start_span(
                name,
                context,
                links=[trace.Link(self._context(place)) for place in links],
                attributes={"banksman.run": ids.show("run", run_id)},
                start_time=began,
            )
        finally:
            _wanted.set(None)

    def _context(self, place: Place) -> SpanContext:
        """Where a span is, or will be, or was, wherever it was made. All services sample by the trace's id alike."""
        from opentelemetry import trace

        trace_id = _number(place[0], "trace", 16)
        sampled = self.provider.sampler.should_sample(None, trace_id, place[1]).decision.is_sampled()
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
        return trace.SpanContext(trace_id, _number(*place, 8), is_remote=True, trace_flags=flags)


def _number(run_id: UUID, about: str, size: int) -> int:
    # Zero is no id; a digest that begins with so many zeros does not come up.
    return int.from_bytes(sha256(b"banksman trace\n" + run_id.bytes + about.encode()).digest()[:size]) or 1


def _discreet(exporter: SpanExporter) -> SpanExporter:
    """The same, without what exceptions say: no events, and of a status only whether it is an error."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Status

    class Discreet(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return exporter.export([self._bare(span) for span in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

        def _bare(self, span: ReadableSpan) -> ReadableSpan:
            return ReadableSpan(
                span.name,
                span.context,
                span.parent,
                span.resource,
                span.attributes,
                (),
                span.links,
                span.kind,
                status=Status(span.status.status_code),
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )

    return Discreet()
