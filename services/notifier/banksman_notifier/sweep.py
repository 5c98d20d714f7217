"""Sweeps for due notices that no message announced: the broker was away, its data was lost, or their claim ran out."""

from __future__ import annotations

from threading import Event, Thread

from banksman import logs
from banksman.errors import Unavailable
from banksman_notifier import deliver

log = logs.get(__name__)


class Sweep:
    """A thread that looks again and again, from `start` to `stop`."""

    def __init__(self, office: deliver.Office, *, every: float) -> None:
        self._office = office
        self._every = every
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, *, within: float) -> None:
        """Finish the handful in hand; after `within` seconds the process may end, and its claims run out."""
        self._stopping.set()
        self._thread.join(within)

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                while not self._stopping.is_set() and deliver.deliver(self._office):
                    pass
            except Unavailable as error:
                log.warning("The sweep waits for PostgreSQL.", error=str(error)[:200])
            except Exception:  # the edge of a thread: without it, lost wake-ups would never be found
                log.exception("The sweep failed, and goes on.")
