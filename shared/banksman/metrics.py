"""What a worker or a notifier counts and times of its own doing, for Prometheus; served beside its health.

The state of things (what waits, how long, what has happened) is the gateway's to say, from PostgreSQL; here is only
what a process alone can know. Labels are names that the process was started with, and everything else is `other`, so
that no run and no model can make series without end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

OTHER = "other"
_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

SEGMENT = Histogram(
    "banksman_segment_seconds", "From the claim of a segment to its end.", ["agent"], buckets=_SLOW, registry=REGISTRY
)
MODEL = Histogram(
    "banksman_model_request_seconds",
    "Requests to models that were answered.",
    ["agent"],
    buckets=_SLOW,
    registry=REGISTRY,
)
TOOL = Histogram(
    "banksman_tool_seconds",
    "Tools' own bodies, whatever came of them.",
    ["agent", "tool"],
    buckets=_QUICK,
    registry=REGISTRY,
)
LIVE = Gauge("banksman_segments_live", "Segments that this process holds.", registry=REGISTRY)
STOPPED = Counter(
    "banksman_segments_stopped",
    "Segments that were stopped: lease lost, run cancelled, worker drained.",
    ["why"],
    registry=REGISTRY,
)
REPEATED = Counter(
    "banksman_segments_repeated",
    "Segments claimed anew, because an earlier attempt broke or its worker was lost.",
    registry=REGISTRY,
)
LOOK = Histogram(
    "banksman_dispatcher_look_seconds", "One look for runs that are due.", buckets=_QUICK, registry=REGISTRY
)
LOOKED_AT = Gauge("banksman_dispatcher_looked_timestamp_seconds", "When the last look ended.", registry=REGISTRY)
DUE = Counter("banksman_dispatcher_due", "Runs that looks found due.", registry=REGISTRY)
SEND = Histogram(
    "banksman_send_seconds",
    "Messages handed over on a channel: sent, to be tried again, or refused for good.",
    ["channel", "outcome"],
    buckets=_QUICK,
    registry=REGISTRY,
)
for _why in ("lost", "cancelled", "drained"):
    STOPPED.labels(_why)

_tools: dict[str, frozenset[str]] = {}


def listed(agents: Mapping[str, Collection[str]]) -> None:
    """The agents of this process and their tools: the names that become labels."""
    _tools.clear()
    _tools.update({agent: frozenset(tools) for agent, tools in agents.items()})


def agent_label(agent: str) -> str:
    """The agent's name, where it is one of ours."""
    return agent if agent in _tools else OTHER


@contextmanager
def segment(agent: str, *, again: bool) -> Generator[None]:
    """The length of the block is one segment."""
    began = time.perf_counter()
    LIVE.inc()
    if again:
        REPEATED.inc()
    try:
        yield
    finally:
        LIVE.dec()
        SEGMENT.labels(agent_label(agent)).observe(time.perf_counter() - began)


@contextmanager
def tool(agent: str, name: str) -> Generator[None]:
    """The length of the block is one call of a tool's body."""
    began = time.perf_counter()
    try:
        yield
    finally:
        known = name if name in _tools.get(agent, ()) else OTHER
        TOOL.labels(agent_label(agent), known).observe(time.perf_counter() - began)


def answered(agent: str, seconds: float) -> None:
    """A model answered after so long."""
    MODEL.labels(agent_label(agent)).observe(seconds)


def text() -> bytes:
    """All of it, as Prometheus reads it."""
    return generate_latest(REGISTRY)


class Pulses(Collector):
    """How long ago each part of the process last showed that it lives."""

    def __init__(self, pulses: Callable[[], Mapping[str, float]]) -> None:
        self._pulses = pulses

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The ages of this moment."""
        ages = GaugeMetricFamily(
            "banksman_pulse_age_seconds", "Since a part of the process last showed that it lives.", labels=["pulse"]
        )
        for name, at in self._pulses().items():
            ages.add_metric([name], time.monotonic() - at)
        yield ages
