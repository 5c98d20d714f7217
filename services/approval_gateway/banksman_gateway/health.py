"""Whether the process lives, whether it can serve, and a few numbers. Only PostgreSQL being away makes it unready."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from pydantic import BaseModel

from banksman import ledger
from banksman.errors import Unavailable
from banksman.ledger import views
from banksman.states import RequestState, RunStatus
from banksman_gateway import told_metrics
from banksman_gateway.parts import Here, Parts

router = APIRouter(tags=["health"])

_WITHIN = 1.0
_FRESH_SECONDS = 5.0
_LAG = timedelta(seconds=5)
# Probes have threads of their own: they answer while every other thread waits for PostgreSQL.
_limiter = CapacityLimiter(2)


class Health(BaseModel):
    """How the gateway is. Without the broker everything is still accepted, and found a little later."""

    status: Literal["ok", "unready"]
    postgresql: bool | None = None
    broker: bool | None = None


@router.get("/healthz", response_model_exclude_none=True)
async def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Health}})
async def readyz(here: Here, response: Response) -> Health:
    """PostgreSQL answers, too."""
    up = False
    # A server that is frozen accepts a connection and says nothing: the probe gives up by itself.
    with move_on_after(2 * _WITHIN):
        up = await to_thread.run_sync(_reachable, here, limiter=_limiter, abandon_on_cancel=True)
    if not up:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return Health(status="ok" if up else "unready", postgresql=up, broker=here.pulse.beats)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    registry: CollectorRegistry = request.app.state.metrics
    body = await to_thread.run_sync(generate_latest, registry, limiter=_limiter)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def registry(here: Parts) -> CollectorRegistry:
    """The numbers of this process."""
    made = CollectorRegistry()
    made.register(_Counted(here))
    made.register(told_metrics.Counted(here))
    return made


def _reachable(here: Parts) -> bool:
    up = ledger.reachable(here.pool, within=_WITHIN)
    if up:
        here.outage.until = 0.0
    return up


class _Counted(Collector):
    """Gauges read from PostgreSQL, at most once in a few seconds; absent while it is away."""

    def __init__(self, here: Parts) -> None:
        self._here = here
        self._lock = threading.Lock()
        self._read_at = -_FRESH_SECONDS
        self._gauges: views.Gauges | None = None
        self._counted_to: datetime | None = None
        self._settled = Counter({state: 0 for state in RequestState if state is not RequestState.OPEN})

    def collect(self) -> Iterator[Metric]:
        """The gauges as of now, or as of a few seconds ago."""
        yield GaugeMetricFamily(
            "banksman_broker_up", "Whether the broker tells of changes.", int(self._here.pulse.beats)
        )
        gauges = self._fresh()
        yield GaugeMetricFamily("banksman_postgresql_up", "Whether PostgreSQL answers.", int(gauges is not None))
        if gauges is None:
            return
        runs = GaugeMetricFamily("banksman_runs", "Runs that are not over, by status.", labels=["status"])
        for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.STUCK):
            runs.add_metric([status.value], gauges.runs.get(status.value, 0))
        yield runs
        yield GaugeMetricFamily("banksman_requests_open", "Requests that wait.", gauges.open_requests)
        yield GaugeMetricFamily(
            "banksman_requests_oldest_open_seconds",
            "Age of the request that has waited longest.",
            0 if gauges.oldest_open is None else gauges.oldest_open.total_seconds(),
        )
        yield GaugeMetricFamily(
            "banksman_requests_unreachable",
            "Requests that wait and that nobody, or too few people, may decide.",
            gauges.unreachable,
        )
        settled = CounterMetricFamily(
            "banksman_requests_settled",
            "Requests by how they ended, since this gateway started. Every gateway counts all of them.",
            labels=["state"],
        )
        for state, number in self._settled.items():
            settled.add_metric([state.value], number)
        yield settled

    def _fresh(self) -> views.Gauges | None:
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_SECONDS:
                try:
                    with ledger.transaction(self._here.pool) as conn:
                        self._gauges = views.gauges(conn)
                        self._counted_to, settled = views.settled_since(conn, self._counted_to, lag=_LAG)
                    self._settled.update(settled)
                except Unavailable:
                    self._gauges = None
                self._read_at = time.monotonic()
            return self._gauges
