"""Traces as far as one process goes: ids that follow from what is traced, no words of exceptions, nothing when off."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from banksman import ids, tracing
from banksman.ids import RunId


def test_two_processes_that_know_a_run_are_in_one_trace() -> None:
    run_id, other = RunId(ids.new()), RunId(ids.new())
    seen: list[InMemorySpanExporter] = []

    for process in ("gateway", "worker"):
        seen.append(InMemorySpanExporter())
        tracing.begin(process, seen[-1])
        if process == "gateway":
            tracing.record("submission", run_id, 0.0, at=tracing.submission(run_id))
        else:
            with tracing.span("segment", run_id, at=tracing.segment(run_id, 0)), tracing.span("call", run_id):
                pass
            with tracing.span("segment", other):
                pass
        tracing.end()

    [submission] = seen[0].get_finished_spans()
    call, segment, apart = seen[1].get_finished_spans()
    assert submission.parent is None
    assert _place(segment)[0] == _place(call)[0] == _place(submission)[0]
    assert _above(segment) == _place(submission)
    assert _above(call) == _place(segment)
    assert len({_place(submission), _place(segment), _place(call)}) == 3
    assert _place(apart)[0] != _place(submission)[0]


def _place(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def _above(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


def test_a_span_says_that_something_broke_and_not_what() -> None:
    exporter = InMemorySpanExporter()
    provider = tracing.begin("worker", exporter)

    with pytest.raises(ValueError, match="secret"), provider.get_tracer("other").start_as_current_span("tool"):
        raise ValueError("the secret is 42")
    tracing.end()

    [span] = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert "secret" not in span.to_json()


def test_where_nobody_asks_for_traces_nothing_is_made_or_loaded() -> None:
    program = (
        "import sys\n"
        "from banksman import ids, tracing\n"
        "assert tracing.configure('x', {}) is None\n"
        "off = {'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://x', 'OTEL_SDK_DISABLED': 'true'}\n"
        "assert tracing.configure('x', off) is None\n"
        "with tracing.span('segment', ids.RunId(ids.new())): tracing.record('vote', ids.RunId(ids.new()), 0.0)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
