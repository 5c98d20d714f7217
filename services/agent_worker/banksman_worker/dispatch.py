"""The dispatcher: finds runs that are due and sends their wake-ups; one statement starts, repairs and gives up.

It runs in every worker process, and any number of them may look at once. What it sends may be lost or doubled: the
claim decides.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta

from banksman import ids, ledger, logs, metrics
from banksman.errors import BanksmanError
from banksman.ledger import agents, audit, families, rescue, runs, stops
from banksman.records import Cap, Due, Event
from banksman.states import RunStatus
from banksman.wire import Wire

log = logs.get(__name__)


_ACTOR = "dispatcher"
_LOST = "The run's worker ended or was lost in the middle of this segment,"


class Dispatcher:
    """Looks every `interval` seconds, and again at once while the window was full."""

    def __init__(
        self,
        pool: ledger.Pool,
        wire: Wire,
        *,
        interval: float,
        window: int,
        redispatch: timedelta,
        max_attempts: int,
        caps: Sequence[Cap] = (),
    ) -> None:
        self._pool, self._wire = pool, wire
        self._interval, self._window = interval, window
        self._redispatch, self._max_attempts, self._caps = redispatch, max_attempts, caps
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stopping.set()
        self._thread.join()

    def look(self) -> Sequence[Due]:
        """One round: what is due and fits the window is dispatched or stuck; runs of paused agents are set aside."""
        with ledger.transaction(self._pool) as conn:
            paused = agents.set_aside(conn)
            due = runs.dispatch(
                conn,
                window=self._window,
                redispatch=self._redispatch,
                max_attempts=self._max_attempts,
                paused=paused,
                caps=self._caps,
            )
            stuck = [item for item in due if item.status is RunStatus.STUCK]
            for item in stuck:
                rescue.explain(conn, item.run_id, f"{_LOST} {self._max_attempts} times.")
            audit.append(conn, *(Event(_ACTOR, "run.stuck", item.run_id) for item in stuck))
        self._wire.run(*((item.run_id, item.segment) for item in due if item.status is RunStatus.QUEUED))
        for item in stuck:
            log.error("A run used up its attempts and is stuck.", run=ids.show("run", item.run_id))
            self._wire.changed(run=item.run_id)
        self._bury()
        self._report()
        return due

    def _bury(self) -> None:
        """Cancelled, each run that was asked to stop and whose worker is gone; what was dispatched stands already."""
        with ledger.transaction(self._pool) as conn:
            cancelled = rescue.bury_cancelled(conn)
            audit.append(conn, *(Event(_ACTOR, "run.cancelled", run_id) for run_id in cancelled))
            if cancelled:
                stops.withdraw(conn, cancelled, _ACTOR)
        for run_id in cancelled:
            self._wire.changed(run=run_id)

    def _report(self) -> None:
        """Every parent of a child whose end nobody has told: looked at, and woken if it waits for nothing more."""
        while True:
            with ledger.transaction(self._pool) as conn:
                parents = families.unreported(conn)
            for parent_id in parents:
                with ledger.transaction(self._pool) as conn:
                    segment = families.report(conn, parent_id, hint=self._redispatch)
                if segment is not None:
                    self._wire.run((parent_id, segment))
            if not parents or self._stopping.is_set():
                return

    def _keep(self) -> None:
        delay = 0.0
        while not self._stopping.wait(delay):
            try:
                with metrics.LOOK.time():
                    found = len(self.look())
                metrics.DUE.inc(found)
                metrics.LOOKED_AT.set_to_current_time()
                delay = 0.0 if found >= self._window else self._interval
            except BanksmanError as error:
                log.warning("The dispatcher could not look.", error=str(error)[:200])
                delay = self._interval
            except Exception:
                log.exception("The dispatcher broke, and goes on.")
                delay = self._interval
