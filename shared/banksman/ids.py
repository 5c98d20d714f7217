"""Ids: UUIDv7 made here (RFC 9562, section 5.7), one type for each kind, shown with a prefix such as `run_…`."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime
from threading import Lock
from typing import NewType
from uuid import UUID

from banksman.errors import InvalidInput

RunId = NewType("RunId", UUID)
RequestId = NewType("RequestId", UUID)
VoteId = NewType("VoteId", UUID)
NoticeId = NewType("NoticeId", UUID)
PersonId = NewType("PersonId", UUID)
KeyId = NewType("KeyId", UUID)
BatchId = NewType("BatchId", UUID)
GrantId = NewType("GrantId", UUID)
AbsenceId = NewType("AbsenceId", UUID)
RemarkId = NewType("RemarkId", UUID)
EndpointId = NewType("EndpointId", UUID)
DeliveryId = NewType("DeliveryId", UUID)

_PREFIXES = {"run", "req", "vot", "ntc", "per", "key", "bat", "end", "dlv", "abs", "rmk", "gra"}
_SHOWN = re.compile(r"([a-z]{3})_([0-9a-f]{32})")


_last = 0
_lock = Lock()


def new() -> UUID:
    """A fresh UUIDv7: 48 bits of milliseconds since 1970, 12 of their fraction, 62 random ones.

    Ids sort by age, and those of one process in the order in which they were made, however fast.
    """
    global _last  # noqa: PLW0603  the clock may stand still or step back; ids may not
    tick = time.time_ns() * 4096 // 1_000_000
    with _lock:
        tick = _last = max(tick, _last + 1)
    milliseconds, fraction = divmod(tick, 4096)
    random = int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random)


def first_of(moment: datetime) -> UUID:
    """The smallest id that can be made at this moment: what sorts below it is older."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def show(prefix: str, value: UUID) -> str:
    """The public spelling of an id, `run_0192…`."""
    assert prefix in _PREFIXES, prefix
    return f"{prefix}_{value.hex}"


def read(prefix: str, text: str) -> UUID:
    """The id behind its public spelling; anything else is refused by name."""
    match = _SHOWN.fullmatch(text)
    if match is None or match[1] != prefix:
        raise InvalidInput(f"{text[:60]!r} is not an id of the form {prefix}_ and 32 hex digits.")
    return UUID(match[2])
