"""The gateway's own sweep: overdue requests, batches whose cancelling broke off, answers that are a day old.

Silence never allows anything. An overdue request becomes *expired*, by nobody's vote and without a signature; what
that means was frozen in its requirement: the call is not made and the run goes on, or the run ends. Each request is a
transaction of its own, behind its run's row like every decision, so a vote and a deadline that come together meet
there and one of them finds the other done. An error is logged and the sweep goes on; what it missed is still overdue
the next time.
"""

from __future__ import annotations

import threading
import time

from banksman import ledger, logs
from banksman.errors import Crossed, Unavailable
from banksman.ids import RequestId, RunId
from banksman.ledger import answers, audit, requests, runs, stops
from banksman.records import Event
from banksman_gateway import batches
from banksman_gateway.parts import Parts

ACTOR = "gateway"
_AT_ONCE = 100
_FORGET_SECONDS = 600.0

log = logs.get(__name__)


class Sweep:
    """A thread that sweeps until it is closed."""

    def __init__(self, here: Parts) -> None:
        self._here = here
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the item at hand."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        forget_at = time.monotonic()
        while not self._over.wait(self._here.settings.sweep_seconds):
            try:
                expire_overdue(self._here, until=self._over)
                batches.cancel_marked(self._here)
                if time.monotonic() >= forget_at:
                    with ledger.transaction(self._here.pool) as conn:
                        answers.forget(conn)
                    forget_at = time.monotonic() + _FORGET_SECONDS
            except Unavailable as error:
                log.warning("The sweep waits for PostgreSQL.", error=str(error)[:200])
            except Exception:
                log.exception("The sweep broke off; it goes on.")


def expire_overdue(here: Parts, *, until: threading.Event | None = None) -> int:
    """Open past its deadline → expired, each in its own transaction; how many."""
    expired = 0
    last: tuple[RunId, RequestId] | None = None
    while True:
        with ledger.transaction(here.pool) as conn:
            due = requests.overdue(conn, last, limit=_AT_ONCE)
        for last in due:
            if until is not None and until.is_set():
                return expired
            expired += _tried(here, *last)
        if len(due) < _AT_ONCE:
            return expired


def _tried(here: Parts, run_id: RunId, request_id: RequestId) -> bool:
    try:
        return _expire(here, run_id, request_id)
    except Crossed as error:
        log.info("A request expires in the next round.", request=request_id.hex, error=str(error)[:200])
    except Unavailable:
        raise
    except Exception as error:  # whatever is wrong with one row, the others expire
        log.exception("A request could not expire.", request=request_id.hex, error=str(error)[:200])
    return False


def _expire(here: Parts, run_id: RunId, request_id: RequestId) -> bool:
    with ledger.transaction(here.pool) as conn:
        runs.lock(conn, run_id)
        if not requests.expire(conn, request_id):
            return False
        request = requests.get(conn, request_id)
        audit.append(conn, Event(ACTOR, "request.expired", run_id, request_id))
        ends = request.requirement.on_expiry == "stop"
        if ends:
            stops.stop(conn, [run_id], ACTOR, because="Nobody decided in time.")
        segment = None if ends else runs.wake(conn, run_id, hint=here.hint)
    if segment is not None:
        here.wire.run((run_id, segment))
    here.wire.changed(run=run_id, request=request_id)
    return True
