"""What one writes first: Celery, Redis and a small API, to run the same agent with an approval in between.

    celery -A banksman.bench.naive worker
    uvicorn banksman.bench.naive:web

It answers the load's questions (`banksman.bench.load`) in Banksman's shapes and does nothing else. Celery and Redis
have their defaults. A run is a hash in Redis, what waits for a person is in a set, and a lost message is a lost run:
there is no lease, no journal, no signature, no policy, no audit, nobody is told, and anybody may do anything.
"""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from pydantic_ai import DeferredToolRequests, DeferredToolResults
from pydantic_ai.messages import ModelMessagesTypeAdapter

from banksman.bench.subject import agent

URL = "BANKSMAN_BENCH_NAIVE_URL"

_RUN, _OPEN, _STATUS = "run:", "open", "status:"
_REQUESTS: TypeAdapter[DeferredToolRequests] = TypeAdapter(DeferredToolRequests)

kept: Any = redis.Redis.from_url(os.environ.get(URL, "redis://127.0.0.1/0"), decode_responses=True)
app = Celery("naive", broker=os.environ.get(URL, "redis://127.0.0.1/0"))
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
web = FastAPI()


@app.task
def start(run_id: str) -> None:
    """Run the agent from the prompt to its first pause."""
    _move(run_id, "queued", "running")
    prompt: str = kept.hget(_RUN + run_id, "prompt")
    _keep(run_id, asyncio.run(agent.run(prompt)))


@app.task
def resume(run_id: str, approved: bool) -> None:
    """Run it on with what a person said."""
    _move(run_id, "queued", "running")
    messages, waiting = kept.hmget(_RUN + run_id, "messages", "waiting")
    requests = _REQUESTS.validate_json(waiting)
    results = DeferredToolResults(approvals={call.tool_call_id: approved for call in requests.approvals})
    history = ModelMessagesTypeAdapter.validate_json(messages)
    _keep(run_id, asyncio.run(agent.run(message_history=history, deferred_tool_results=results)))


def _keep(run_id: str, result: Any) -> None:
    kept.hset(_RUN + run_id, "messages", result.all_messages_json())
    if isinstance(result.output, DeferredToolRequests):
        kept.hset(_RUN + run_id, "waiting", _REQUESTS.dump_json(result.output))
        _move(run_id, "running", "waiting")
        kept.sadd(_OPEN, run_id)
    else:
        kept.hset(_RUN + run_id, "output", result.output)
        _move(run_id, "running", "finished")


def _move(run_id: str, before: str, now: str) -> None:
    kept.hset(_RUN + run_id, "status", now)
    kept.smove(_STATUS + before, _STATUS + now, run_id)


class Asked(BaseModel):
    """A run to start."""

    agent: str
    prompt: str


class Vote(BaseModel):
    """What a person says."""

    verdict: str


@web.post("/v1/runs", status_code=201)
def submit(asked: Asked) -> dict[str, str]:
    """Start a run."""
    run_id = uuid4().hex
    kept.hset(_RUN + run_id, mapping={"status": "queued", "prompt": asked.prompt})
    kept.sadd(_STATUS + "queued", run_id)
    start.delay(run_id)
    return {"id": run_id, "status": "queued"}


@web.get("/v1/requests")
def open_requests(limit: int = 100) -> dict[str, list[dict[str, Any]]]:
    """What waits for a person."""
    found: list[str] = list(islice(kept.sscan_iter(_OPEN, count=limit), limit))
    with kept.pipeline(transaction=False) as pipe:
        for run_id in found:
            pipe.hget(_RUN + run_id, "waiting")
        shown: Any = zip(found, pipe.execute(), strict=True)
    return {"items": [{"id": run_id, "asked": asked, "digest": "", "revision": 1} for run_id, asked in shown]}


@web.post("/v1/requests/{run_id}/votes")
def vote(run_id: str, said: Vote) -> dict[str, str]:
    """Decide, and run it on."""
    kept.srem(_OPEN, run_id)
    _move(run_id, "waiting", "queued")
    resume.delay(run_id, said.verdict == "approve")
    return {"id": run_id, "status": "queued"}


@web.get("/v1/runs")
def runs(status: str, limit: int = 100) -> dict[str, list[dict[str, str]]]:
    """Runs in a state."""
    found: list[str] = list(islice(kept.sscan_iter(_STATUS + status, count=limit), limit))
    return {"items": [{"id": run_id, "status": status} for run_id in found]}
