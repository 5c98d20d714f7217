"""The agent worker as a process: builds everything once, consumes with Celery threads, and drains when told to stop.

Celery's own time limits and terminate do not work with threads, so none is used: leases bound a segment, a flag in the
row cancels it, and on SIGTERM whatever does not end in time is handed back to the queue.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

from celery import signals
from pydantic_ai import Agent
from pydantic_ai.models.instrumented import InstrumentationSettings

from banksman import consumer, ledger, logs, metrics, standing_policy, tracing, vault
from banksman.ledger import agents as announced
from banksman.policy import Policy
from banksman.settings import WorkerSettings
from banksman.signing import Verifier
from banksman.wire import RESUME, START, Wire
from banksman_worker import agents, capping, inventory, scripted, tasks
from banksman_worker.dispatch import Dispatcher
from banksman_worker.granting import Grantbook
from banksman_worker.lease import Leases
from banksman_worker.loop import Loop
from banksman_worker.parts import Worker
from banksman_worker.rulebook import Rulebook, Watch

# Threads that talk to PostgreSQL hand the interpreter's lock to and fro at every wait. Few of them cost less CPU.
_HOPS = 2
_DESKS = 2

log = logs.get(__name__)


def with_model(agent: agents.Loaded, settings: WorkerSettings) -> agents.Loaded:
    """The agent with the model that BANKSMAN_DEMO_MODEL puts in place of a scripted one; otherwise as it is."""
    if not settings.demo_model or not isinstance(agent.agent.model, scripted.ScriptedModel):
        return agent
    return replace(agent, model=scripted.resolve_model(agent.agent.model, settings.demo_model))


def run(settings: WorkerSettings) -> int:
    """Serve until told to stop; the exit code."""
    vault.use(settings.vault_keys.get_secret_value())
    _trace()
    verifier = Verifier.read(settings.verify_keys)
    policy = standing_policy.of_settings(settings)
    loaded = {name: with_model(agent, settings) for name, agent in agents.load(settings.agents).items()}
    loop = Loop()
    listed = {agent.name: _tools(loop, agent, policy) for agent in loaded.values()}
    metrics.listed(listed)

    pool = ledger.open_pool(settings.database_url.get_secret_value(), size=_HOPS + _DESKS + 2, name="banksman-worker")
    broker_url = settings.broker_url.get_secret_value()
    wire = Wire(broker_url, expires=settings.redispatch_seconds)
    celery = consumer.app(broker_url, "banksman-worker")
    with ledger.transaction(pool) as conn:
        announced.announce(conn, {name: (loaded[name].version, tools) for name, tools in listed.items()})
    book = Rulebook(verifier, standing_policy.of_file(settings.policy), name=f"worker:{socket.gethostname()}")
    grants = Grantbook(book, verifier)
    watch = Watch(pool, book, grants)
    executor = ThreadPoolExecutor(_HOPS, thread_name_prefix="ledger")
    leases = Leases(pool, settings.lease, loop)
    name = f"{socket.gethostname()}:{os.getpid()}"
    caps = capping.of(settings.max_running, loaded)
    worker = Worker(
        name,
        pool,
        wire,
        loop.loop,
        executor,
        leases,
        loaded,
        replace(policy, rules=grants),
        verifier,
        settings.lease,
        threading.Semaphore(_DESKS),
        hint=settings.redispatch,
        cancel_grace=settings.cancel_grace,
        step_limit=timedelta(seconds=settings.step_seconds),
        caps=caps,
    )
    tasks.register(celery, worker)
    dispatcher = Dispatcher(
        pool,
        wire,
        interval=settings.sweep_seconds,
        window=settings.window,
        redispatch=settings.redispatch,
        max_attempts=settings.max_attempts,
        caps=caps,
    )
    _drain_on_shutdown(leases, settings.drain_seconds)
    watch.start()
    dispatcher.start()
    try:
        return consumer.serve(
            celery,
            name="agent-worker",
            queues=[RESUME, START],
            threads=settings.concurrency,
            health=(settings.health_host, settings.health_port),
            pulses=lambda: {"loop": loop.last_tick, "leases": leases.last_beat},
            stale_after=max(30.0, settings.lease_seconds),
        )
    finally:
        dispatcher.close()
        watch.close()
        leases.close()
        while leases.unstored():  # what has run is stored, whoever holds the run by now
            time.sleep(0.05)
        executor.shutdown()
        loop.close()
        wire.close()
        celery.close()
        pool.close()
        tracing.end()


def _trace() -> None:
    """Where traces are asked for, the agent library's own spans stand in them too: names and numbers, no content."""
    provider = tracing.configure("banksman-worker", os.environ)
    if provider is not None:
        Agent.instrument_all(
            InstrumentationSettings(
                tracer_provider=provider,
                include_content=False,
                include_binary_content=False,
                include_model_request_parameters=False,
            )
        )


def _tools(loop: Loop, agent: agents.Loaded, policy: Policy) -> Mapping[str, Any]:
    """The agent's tools with their gates; a tool that cannot be held stops the start-up."""
    found = asyncio.run_coroutine_threadsafe(inventory.take(agent), loop.loop).result()
    inventory.refuse(agent, found)
    return {tool.name: tool.gate(policy) for tool in found}


def _drain_on_shutdown(leases: Leases, grace: float) -> None:
    """On SIGTERM give live segments `grace` seconds, then hand back whatever is not in the middle of a tool."""

    @signals.worker_shutting_down.connect(weak=False)
    def drain(**_: Any) -> None:
        # The signal arrives inside Celery's main thread, which must go on acknowledging.
        threading.Thread(target=_drain, args=(leases, grace), name="drain", daemon=True).start()

    del drain


def _drain(leases: Leases, grace: float) -> None:
    deadline = time.monotonic() + grace
    while leases.held() and time.monotonic() < deadline:
        time.sleep(0.05)
    while remaining := leases.held():
        for lease in remaining:
            lease.drain()  # a tool that has started is waited for: cut off, its outcome would be unknown
        time.sleep(0.05)
