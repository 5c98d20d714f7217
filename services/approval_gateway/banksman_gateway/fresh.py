"""What is read from PostgreSQL for `/metrics`: once in a while, however often and by how many it is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from banksman import ledger
from banksman.errors import Unavailable
from banksman.ledger import Connection

T = TypeVar("T")

_SHARE = 20
"""What takes a second to read is read again after so many at the earliest: counting stays a small part of the load."""


class Fresh(Generic[T]):
    """The last reading, made again when it is older than `seconds`; None while PostgreSQL is away."""

    clock = staticmethod(time.monotonic)

    def __init__(self, pool: ledger.Pool, seconds: float, read: Callable[[Connection], T]) -> None:
        self._pool, self._seconds, self._read = pool, seconds, read
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._found: T | None = None

    def get(self) -> T | None:
        """What was read now, or a while ago."""
        with self._lock:
            began = self.clock()
            if began >= self._next_at:
                try:
                    with ledger.transaction(self._pool) as conn:
                        self._found = self._read(conn)
                except Unavailable:
                    self._found = None
                ended = self.clock()
                self._next_at = ended + max(self._seconds, _SHARE * (ended - began))
            return self._found
