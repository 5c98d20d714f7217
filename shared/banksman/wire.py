"""The wire: wake-ups over Celery and Redis. A message carries ids and nothing else: the row says what to do.

Publishing is best effort with short timeouts, after the commit. When the broker is away the commit still stands and
the sweeps find the row, so nothing here raises; after a failure publishing rests for a moment, so that a dead broker
does not slow every request down.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from threading import Lock
from uuid import UUID

import redis
from celery import Celery

from banksman import logs
from banksman.ids import NoticeId, RequestId, RunId

START, RESUME, APPROVALS = "runs.start", "runs.resume", "approvals"
CHANGED = "banksman:changed"
_REST_SECONDS = 2.0
_PATIENCE_SECONDS = 1.0

log = logs.get(__name__)


def app(broker_url: str, name: str, *, patience: float = 10) -> Celery:
    """A Celery application with everything off that is not a plain message of JSON ids.

    `patience` is how many seconds a broker that hangs may take to answer: a consumer waits for messages longer than a
    request may wait to publish one.
    """
    celery = Celery(name, broker=broker_url, set_as_current=False)
    celery.conf.update(
        task_serializer="json",
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
        task_publish_retry=False,
        task_create_missing_queues=True,
        task_routes={"start_run": {"queue": START}, "resume_run": {"queue": RESUME}, "deliver": {"queue": APPROVALS}},
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_timeout": patience,
            "socket_connect_timeout": 1,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "priority",
            "max_retries": 1,
        },
    )
    return celery


class Wire:
    """Publishes wake-ups, and tells pages that something changed."""

    def __init__(self, broker_url: str, name: str, *, expires: float) -> None:
        self.celery = app(broker_url, name)
        self._publisher = app(broker_url, name, patience=_PATIENCE_SECONDS)
        self._redis = redis.Redis.from_url(
            broker_url, socket_timeout=_PATIENCE_SECONDS, socket_connect_timeout=1, health_check_interval=10
        )
        self._expires = expires
        self._resting_until = 0.0
        self._lock = Lock()

    def run(self, *due: tuple[RunId, int]) -> None:
        """Wake a worker for each (run, segment): a start for the first segment, a resumption for any later one."""
        for run_id, segment in due:
            self._send("resume_run" if segment else "start_run", [run_id.hex, segment])

    def deliver(self, notices: Iterable[NoticeId]) -> None:
        """Wake a notifier for notices that are due."""
        ids = [notice.hex for notice in notices]
        if ids:
            self._send("deliver", [ids])

    def changed(self, *, run: RunId | None = None, request: RequestId | None = None) -> None:
        """Tell whoever watches that there is something new to read."""
        body = {name: _hex(value) for name, value in (("run", run), ("request", request)) if value}
        if not self._rests():
            try:
                self._redis.publish(CHANGED, json.dumps(body))
            except redis.RedisError as error:
                self._rest(error)

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()
        self._publisher.close()
        self.celery.close()

    def _send(self, task: str, arguments: list[object]) -> None:
        if self._rests():
            return
        try:
            self._publisher.send_task(task, args=arguments, expires=self._expires)
        except Exception as error:  # noqa: BLE001  whatever the transport raises: the row is found later
            self._rest(error)

    def _rests(self) -> bool:
        return time.monotonic() < self._resting_until

    def _rest(self, error: Exception) -> None:
        with self._lock:
            self._resting_until = time.monotonic() + _REST_SECONDS
        log.warning("The broker cannot be reached; the sweeps find what waits.", error=str(error)[:200])


def _hex(value: UUID) -> str:
    return value.hex
