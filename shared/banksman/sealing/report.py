"""What a check of the log found, and the two things that every check does: compare heads that were kept, and times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from banksman.errors import NotGenuine
from banksman.sealing import heads
from banksman.sealing.heads import Head
from banksman.sealing.receipts import Named
from banksman.signing import Signed, Verifier

MOST = 100
"""Findings that are listed; the rest would say the same."""

CLOCK = timedelta(minutes=1)
"""How far an event's time may lie from the heads before and after it: a database's clock is set back now and then."""

Kept = Signed | Named
"""A head that was kept elsewhere: as it was signed, or as a receipt names it."""


@dataclass(slots=True)
class Report:
    """What a check saw."""

    events: int = 0
    heads: int = 0
    anchored: int = 0
    moves: int = 0
    waiting: int = 0
    newest: Head | None = None
    findings: list[str] = field(default_factory=list[str])

    def found(self, what: str) -> None:
        """Something is not as it was sealed."""
        if len(self.findings) < MOST:
            self.findings.append(what)


class Times:
    """When the last heads were made, for events that say that they are older than they can be."""

    def __init__(self) -> None:
        self._heads: list[tuple[int, datetime, int]] = []
        self._cursor = (0, 0)
        self.since = datetime.min.replace(tzinfo=UTC) + CLOCK
        """When the log was first sealed as far as it is sealed now."""

    def sealed(self, head: Head) -> None:
        """A head comes after the events that were compared so far."""
        if head.cursor != self._cursor:
            self._cursor, self.since = head.cursor, datetime.fromisoformat(head.at)
        self._heads.append((head.ceiling, datetime.fromisoformat(head.at), head.number))
        del self._heads[:-4096]

    def doubt(self, number: int, xid: int, said: str, position: int, head: Head, *, moved: bool) -> str | None:
        """What is wrong with an event's time or place, if anything.

        Under the first head in another PostgreSQL stand events that the old one's clock timed, and some that were
        written at low places before `banksman migrate`: none of them is older than the head before.
        """
        try:
            at = datetime.fromisoformat(said)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            return f"Event {number} says {said}, which is no time: it was not written so (position {position})."
        if (xid, number) <= self._cursor and at < self.since - CLOCK:
            return (
                f"Event {number} says {said} and stands before what was sealed by {self.since.isoformat()}, but was "
                f"sealed after that: put in afterwards (position {position})."
            )
        before = bisect_right(self._heads, xid, key=lambda time: time[0])
        if before and at < self._heads[before - 1][1] - CLOCK:
            return (
                f"Event {number} says {said}, but was written after head {self._heads[before - 1][2]}: "
                f"put in afterwards (position {position})."
            )
        if not moved and at > datetime.fromisoformat(head.at) + CLOCK:
            return f"Event {number} says {said}, after the head that sealed it."
        return None


def compare(report: Report, verifier: Verifier, kept: Iterable[Kept], find: Callable[[int], Signed | None]) -> None:
    """Every head that was kept elsewhere is one of the log's; `find` gives the log's own of a number."""
    newest = report.newest.number if report.newest else 0
    for item in kept:
        if isinstance(item, Named):
            head = item
            where = f"{head.size} events, root {head.root.hex()}"
        else:
            try:
                head = heads.verify(verifier, item)
            except NotGenuine as error:
                report.found(f"A head among the anchored ones is not genuine: {error}")
                continue
            where = f"{head.size} events at {head.at}"
        report.anchored += 1
        stored = find(head.number)
        if stored is None:
            report.found(
                f"Head {head.number} ({where}) was anchored and is gone: the log, which ends at head {newest}, was "
                "rolled back."
            )
        elif not _same(stored, item):
            report.found(f"Head {head.number} is not the one that was anchored ({where}).")


def _same(stored: Signed, kept: Kept) -> bool:
    if isinstance(kept, Signed):
        return stored.statement == kept.statement
    found = heads.read(stored)
    return (found.size, found.root) == (kept.size, kept.root)
