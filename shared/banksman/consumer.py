"""A Celery worker as our services run it: threads in this process, plain messages, and a pulse to judge it by.

Liveness is the age of the hub's tick. A worker whose broker connection is dead but open stops ticking, while
`inspect ping` would cost a second of CPU and remote control is off anyway.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from celery import Celery, Task, bootsteps, signals
from celery.exceptions import Ignore

from banksman import collecting, logs
from banksman.errors import InvalidInput, Unavailable
from banksman.health import Health

T = TypeVar("T")

log = logs.get(__name__)


def app(broker_url: str, name: str) -> Celery:
    """A Celery application with everything off that is not a plain message of JSON ids."""
    celery = Celery(name, broker=broker_url, set_as_current=False)
    celery.conf.update(
        broker_transport="banksman.transport:Transport",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 1,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "priority",
            "max_retries": 1,
        },
    )
    return celery


def serve(
    celery: Celery,
    *,
    name: str,
    queues: Sequence[str],
    threads: int,
    health: tuple[str, int] = ("127.0.0.1", 0),
    pulses: Callable[[], Mapping[str, float]] = dict[str, float],
    stale_after: float = 30.0,
) -> int:
    """Consume the queues until SIGTERM; the exit code. With a port for `health` (host, port), answer there
    how old each pulse is, and with `metrics`.
    """
    last_tick = [time.monotonic()]

    class Tick(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Timer",)

        def start(self, parent: Any) -> None:
            parent.timer.call_repeatedly(1.0, self._tick)

        def _tick(self) -> None:
            last_tick[0] = time.monotonic()

    celery.steps["worker"].add(Tick)
    _quieten()
    with ExitStack() as closing:
        if health[1]:
            answering = Health(*health, lambda: {"hub": last_tick[0], **pulses()}, limit=stale_after)
            closing.callback(answering.close)
        worker = celery.Worker(
            pool="threads",
            concurrency=threads,
            queues=list(queues),
            hostname=f"{name}-{os.getpid()}@{socket.gethostname()}",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        collecting.spare_what_is_loaded()
        log.info("ready", queues=",".join(queues), threads=threads)
        worker.start()
        return int(worker.exitcode or 0)


def task(celery: Celery, name: str, read: Callable[[Sequence[object]], T], act: Callable[[T], object]) -> None:
    """Make `act` the body of a task, on what `read` finds in a message's arguments.

    Whoever can write to the broker can write any message. One that `read` refuses, or that brings callbacks or a chain
    to be called afterwards, is dropped with a line in the log, and nothing that it brought is called.
    """

    def body(self: Task[Any, Any], *arguments: object, **more: object) -> None:
        request = self.request
        try:
            if more or request.callbacks or request.errbacks or request.chain or request.chord:
                raise InvalidInput("A message carries ids and nothing else.")
            found = read(arguments)
        except InvalidInput as error:
            log.warning("A message was dropped.", task=name, why=str(error))
            raise Ignore from None
        try:
            act(found)
        except Unavailable as error:
            log.warning("A message was left to the sweep.", task=name, error=str(error)[:200])

    celery.task(name=name, bind=True, shared=False)(body)


def _quieten() -> None:
    """Celery announces every connection and warns every root user; the services' own lines say what matters."""
    for name in ("celery", "kombu", "amqp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")
    signals.setup_logging.connect(_keep_logging, weak=False)


def _keep_logging(**_: object) -> None:
    """Celery leaves logging alone when somebody answers its signal."""
