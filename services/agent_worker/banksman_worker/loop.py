"""The one event loop of a worker process, on a thread of its own, with a pulse that shows whether it is stuck."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time

from anyio import to_thread

from banksman import logs

log = logs.get(__name__)


class Loop:
    """A running event loop. It is made when the process starts, never at import: a forked one would be dead."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.last_tick = time.monotonic()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the loop, once whatever still runs on it has been cancelled."""
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(_let_tools_start())
        self._tick()
        try:
            self.loop.run_forever()
        finally:
            if not self._closing:
                # Nothing in this process can carry a run any more: it ends, and its leases with it.
                log.critical("The event loop has ended.", why=repr(sys.exc_info()[1]))
                os._exit(70)
        # A task may start others while it ends.
        while pending := asyncio.all_tasks(self.loop):
            for task in pending:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())

    def _tick(self) -> None:
        self.last_tick = time.monotonic()
        self.loop.call_later(1.0, self._tick)


async def _let_tools_start() -> None:
    """A call that is recorded as started must not wait for a thread until its run is another worker's."""
    to_thread.current_default_thread_limiter().total_tokens = math.inf
