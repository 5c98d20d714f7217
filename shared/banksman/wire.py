"""The wire: wake-ups over Redis in Celery's own form. A message carries ids and nothing else: the row says what to do.

Publishing is best effort with short timeouts, after the commit. When the broker is away the commit still stands and
the sweeps find the row, so nothing here raises; after a failure publishing rests for a moment, so that a dead broker
does not slow every request down. It rests too while a queue is full: without anybody who takes messages away, more of
them would only be stale ones.

`message` writes what `read` accepts, and `read` accepts nothing else. Whoever can write to the broker can therefore
make a worker look at a row, which it may do at any time, and can bring nothing else in.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from banksman import logs
from banksman.errors import InvalidInput
from banksman.ids import NoticeId, RequestId, RunId

START, RESUME, APPROVALS = "runs.start", "runs.resume", "approvals"
QUEUES: Mapping[str, str] = {"start_run": START, "resume_run": RESUME, "deliver": APPROVALS}
"""The task of every message, and the one queue on which it is believed."""
CHANGED = "banksman:changed"
MOST_WAITING = 1000
"""How many messages a queue holds before publishing to it rests."""
MOST_BYTES = 64 * 1024
"""The longest message that is read."""

_REST_SECONDS = 2.0
_PATIENCE_SECONDS = 1.0
_NOTICES_IN_ONE = 100
_BROKER = ""
_ID = re.compile(r"[0-9a-f]{32}")
_NOTHING_AFTERWARDS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Hint:
    """What a message says: where to look, and until when that is worth the while."""

    task: str
    arguments: Sequence[object]
    until: datetime

    @property
    def stale(self) -> bool:
        """Whether its time is over; whatever it pointed at is found by state."""
        return self.until <= datetime.now(UTC)


def message(hint: Hint, *, message_id: str = "") -> str:
    """A message of Celery's protocol 2, as kombu's Redis transport lays it into a list."""
    name = message_id or uuid4().hex
    return json.dumps(
        {
            "body": json.dumps([hint.arguments, {}, _NOTHING_AFTERWARDS]),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {
                "lang": "py",
                "task": hint.task,
                "id": name,
                "root_id": name,
                "parent_id": None,
                "group": None,
                "expires": hint.until.isoformat(),
            },
            "properties": {
                "correlation_id": name,
                "delivery_tag": name,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUES[hint.task]},
                "priority": 0,
            },
        }
    )


def read(queue: str, raw: bytes) -> Hint:
    """What a message on this queue says; `InvalidInput` for one that `message` would not have written so."""
    if len(raw) > MOST_BYTES:
        raise InvalidInput(f"It has {len(raw)} bytes.")
    try:
        found: Any = json.loads(raw)
        headers: Any = found["headers"]
        arguments: Any = json.loads(found["body"])[0]
        until = datetime.fromisoformat(headers["expires"])
        task, name = headers["task"], headers["id"]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise InvalidInput("It is not one of our messages.") from None
    if not (_are_ids(arguments) and isinstance(name, str) and _ID.fullmatch(name) and until.tzinfo):
        raise InvalidInput("It is not one of our messages.")
    if not isinstance(task, str) or QUEUES.get(task) != queue:
        raise InvalidInput(f"Its task has no business on {queue!r}.")
    hint = Hint(task, cast("list[object]", arguments), until)
    if found != json.loads(message(hint, message_id=name)):
        raise InvalidInput("A message carries ids and nothing else.")
    return hint


def _are_ids(value: object, *, below: bool = True) -> bool:
    """Whether these are ids, numbers, and at most one list of ids in the list: nothing that nests any deeper."""
    return isinstance(value, list) and all(
        isinstance(item, (str, int)) or (below and _are_ids(item, below=False)) for item in cast("list[object]", value)
    )


class Wire:
    """Publishes wake-ups, and tells pages that something changed."""

    def __init__(self, broker_url: str, *, expires: float) -> None:
        # A connection that the broker has closed is opened again at once; a broker that hangs is not asked twice.
        self._redis = redis.Redis.from_url(
            broker_url,
            socket_timeout=_PATIENCE_SECONDS,
            socket_connect_timeout=_PATIENCE_SECONDS,
            health_check_interval=10,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
        self._expires = timedelta(seconds=expires)
        self._resting_until: dict[str, float] = {}
        self._full: set[str] = set()

    def run(self, *due: tuple[RunId, int]) -> None:
        """Wake a worker for each (run, segment): a start for the first segment, a resumption for any later one."""
        self._push("start_run", [[run_id.hex, segment] for run_id, segment in due if not segment])
        self._push("resume_run", [[run_id.hex, segment] for run_id, segment in due if segment])

    def deliver(self, notices: Iterable[NoticeId]) -> None:
        """Wake a notifier for notices that are due."""
        ids = [notice.hex for notice in notices]
        handfuls = range(0, len(ids), _NOTICES_IN_ONE)
        self._push("deliver", [[ids[start : start + _NOTICES_IN_ONE]] for start in handfuls])

    def changed(self, *, run: RunId | None = None, request: RequestId | None = None) -> None:
        """Tell whoever watches that there is something new to read."""
        body = {name: value.hex for name, value in (("run", run), ("request", request)) if value}
        if not self._rests(_BROKER):
            try:
                self._redis.publish(CHANGED, json.dumps(body))
            except Exception as error:  # noqa: BLE001  whatever the client raises: pages look by themselves
                self._lost(error)

    def close(self) -> None:
        """Let the connections go."""
        self._redis.close()

    def _push(self, task: str, arguments: Sequence[Sequence[object]]) -> None:
        """Lay messages into the task's queue, as many as it may hold."""
        queue = QUEUES[task]
        if not arguments or self._rests(_BROKER) or self._rests(queue):
            return
        until = datetime.now(UTC) + self._expires
        try:
            if queue in self._full and self._waiting(self._redis.llen(queue), queue) >= MOST_WAITING:
                return
            messages = [message(Hint(task, each, until)) for each in arguments[:MOST_WAITING]]
            self._waiting(self._redis.lpush(queue, *messages), queue)
        except Exception as error:  # noqa: BLE001  whatever the client raises: the row is found later
            self._lost(error)

    def _waiting(self, answer: object, queue: str) -> int:
        """How long the queue is; a full one has publishing rest, and is asked how long it is before the next time."""
        length = int(cast("int", answer))
        if length < MOST_WAITING:
            self._full.discard(queue)
            return length
        if queue not in self._full:
            log.warning("Nobody takes messages away; the sweeps find what waits.", queue=queue, waiting=length)
        self._full.add(queue)
        self._resting_until[queue] = time.monotonic() + _REST_SECONDS
        return length

    def _rests(self, what: str) -> bool:
        return time.monotonic() < self._resting_until.get(what, 0.0)

    def _lost(self, error: Exception) -> None:
        self._resting_until[_BROKER] = time.monotonic() + _REST_SECONDS
        log.warning("The broker cannot be reached; the sweeps find what waits.", error=str(error)[:200])
