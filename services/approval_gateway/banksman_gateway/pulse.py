"""The pulse: one listener on the broker for the whole process, which wakes the event streams that wait for a change.

It only ever says "look". While the broker is away nobody is woken, and each stream looks by itself more often.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from banksman import logs
from banksman.errors import Unavailable
from banksman.wire import CHANGED

MOST_WATCHERS = 1000
_RETRY_SECONDS = 1.0

log = logs.get(__name__)


@dataclass(slots=True, eq=False)
class Watcher:
    """One stream's bell. `run` narrows it to one run (hex); without it every change of a request rings."""

    run: str | None
    loop: asyncio.AbstractEventLoop
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, seconds: float) -> bool:
        """Until something changed (True) or the time is up."""
        try:
            await asyncio.wait_for(self.bell.wait(), seconds)
        except TimeoutError:
            return False
        self.bell.clear()
        return True


class Pulse:
    """Listens to `wire.CHANGED` in a thread of its own and rings whoever waits."""

    def __init__(self, broker_url: str) -> None:
        self._redis = redis.Redis.from_url(
            broker_url, socket_timeout=5, socket_connect_timeout=1, health_check_interval=10
        )
        self._watchers: set[Watcher] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="pulse", daemon=True)

    @property
    def beats(self) -> bool:
        """Whether the broker tells us about changes at the moment."""
        return self._listening.is_set()

    @property
    def over(self) -> bool:
        """Whether the process is on its way out: streams end."""
        return self._over.is_set()

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def end(self) -> None:
        """Let every stream end, at once; safe in a signal handler."""
        self._over.set()
        for watcher in tuple(self._watchers):
            _ring(watcher)

    def close(self) -> None:
        """Stop listening."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._redis.close()

    @contextmanager
    def watching(self, run: str | None) -> Generator[Watcher]:
        """A bell for the length of one stream."""
        watcher = Watcher(run, asyncio.get_running_loop())
        with self._lock:
            if len(self._watchers) >= MOST_WATCHERS:
                raise Unavailable("Too many event streams are open on this gateway.")
            self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except (redis.RedisError, OSError) as error:
                if self._listening.is_set():
                    log.warning("The broker went away; streams look by themselves.", error=str(error)[:200])
            self._listening.clear()
            self._over.wait(_RETRY_SECONDS)

    def _follow(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(CHANGED)
            self._listening.set()
            self._tell(None)  # Whatever was said while nobody listened is looked for now.
            while not self._over.is_set():
                message = cast("Any", channel).get_message(timeout=0.25)
                if message is not None:
                    self._tell(message["data"])

    def _tell(self, data: bytes | None) -> None:
        run: Any = None
        if data is not None:
            try:
                run = json.loads(data).get("run")
            except (ValueError, AttributeError):
                return
        with self._lock:
            concerned = [watcher for watcher in self._watchers if data is None or watcher.run in (None, run)]
        for watcher in concerned:
            _ring(watcher)


def _ring(watcher: Watcher) -> None:
    if not watcher.loop.is_closed():
        watcher.loop.call_soon_threadsafe(watcher.bell.set)
