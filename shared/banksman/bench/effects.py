"""What a tool did outside, as a file that outlives every process: one line when it begins, one for the effect."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

LOG = "BENCH_EFFECTS"
HALF_SECONDS = 0.025
"""How long a tool takes before its effect, and as long again after it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the file says so far."""

    begun: int
    newest: int
    """The process that began a tool last; 0 while none has."""
    done: Counter[str]
    """Order → how many times it was refunded."""


def leave(log: str, order: str) -> None:
    """Do it: a refund that takes its time, somewhere in the middle of which it has happened."""
    _write(log, f"begins {order} {os.getpid()}\n")
    time.sleep(HALF_SECONDS)
    _write(log, f"refunds {order} {os.getpid()}\n")
    time.sleep(HALF_SECONDS)


def read(log: Path) -> Seen:
    """The whole file: it is short, and this is not what is measured."""
    begun, newest, done = 0, 0, Counter[str]()
    for line in log.read_text().splitlines() if log.exists() else ():
        what, order, pid = line.split()
        if what == "begins":
            begun, newest = begun + 1, int(pid)
        else:
            done[order] += 1
    return Seen(begun, newest, done)


def _write(log: str, line: str) -> None:
    # One write of an appending descriptor is not torn by others of its kind.
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
