"""Whether the process lives, whether it can serve, and a few numbers. Only PostgreSQL being away makes it unready."""

from __future__ import annotations

from typing import Literal

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from banksman import ledger
from banksman_gateway import state_metrics, told_metrics
from banksman_gateway.parts import Here, Parts

router = APIRouter(tags=["health"])

_WITHIN = 1.0
# Probes have threads of their own: they answer while every other thread waits for PostgreSQL, and so have the numbers.
_limiter = CapacityLimiter(2)
_counting = CapacityLimiter(2)


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
    body = await to_thread.run_sync(generate_latest, registry, limiter=_counting)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def registry(here: Parts) -> CollectorRegistry:
    """The numbers of this process."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(state_metrics.Counted(here))
    made.register(told_metrics.Counted(here))
    return made


def _reachable(here: Parts) -> bool:
    up = ledger.reachable(here.probe, within=_WITHIN)
    if up:
        here.outage.until = 0.0
    return up
