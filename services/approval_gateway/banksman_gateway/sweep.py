"""The gateway's own sweep: requests nobody decides, batches whose cancelling broke off or whose
reviewers have enough to do, answers that are a day old.

An error is logged and the sweep goes on; what it missed is still due the next time.
"""

from __future__ import annotations

import threading
import time

from banksman import ledger, logs
from banksman.errors import Unavailable
from banksman.ledger import answers, sign_ins
from banksman_gateway import batches, key_changes, receipts, silence
from banksman_gateway.parts import Parts

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
                with ledger.transaction(self._here.pool) as conn:
                    self._here.secrecy.refresh(conn)
                silence.act(self._here, until=self._over)
                batches.cancel_marked(self._here)
                batches.press(self._here)
                if time.monotonic() >= forget_at:
                    with ledger.transaction(self._here.pool) as conn:
                        answers.forget(conn)
                        sign_ins.forget(conn)
                    receipts.queue(self._here)
                    key_changes.tell(self._here)
                    forget_at = time.monotonic() + _FORGET_SECONDS
            except Unavailable as error:
                log.warning("The sweep waits for PostgreSQL.", error=str(error)[:200])
            except Exception:
                log.exception("The sweep broke off; it goes on.")
