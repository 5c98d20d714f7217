"""Does the log still say what was sealed: every event hashed again, every root, every signature, every anchored head.

What was done to the log is told apart: an event that was changed, removed or put in afterwards; a leaf that was changed
along with its event; heads that were forged, removed or rolled back. Each finding says where.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from banksman.errors import NotGenuine
from banksman.ledger import Connection, seals
from banksman.ledger.seals import Leaf
from banksman.sealing import heads, leaf, tree
from banksman.sealing.heads import Head
from banksman.signing import Signed, Verifier

MOST = 100
"""Findings that are listed; the rest would say the same."""

CLOCK = timedelta(minutes=1)
"""How far an event's time may lie from the heads before and after it: a database's clock is set back now and then."""

_AT_ONCE = 10_000


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


def check(
    conn: Connection,
    verifier: Verifier,
    *,
    anchored: Iterable[Signed] = (),
    tell: Callable[[int], object] | None = None,
) -> Report:
    """Compare log, tree and heads; `tell` hears how many events have been checked."""
    report = Report()
    _Walk(conn, verifier, report, tell or (lambda _: None)).through()
    _anchors(conn, verifier, report, anchored)
    return report


class _Walk:
    """Once through all leaves, and the heads where their sizes are reached."""

    def __init__(self, conn: Connection, verifier: Verifier, report: Report, tell: Callable[[int], object]) -> None:
        self._conn, self._verifier, self._report, self._tell = conn, verifier, report, tell
        self._frontier = tree.Frontier()
        self._whole = True
        self._times: list[tuple[int, datetime, int]] = []

    def through(self) -> None:
        pending: list[Leaf] = []
        leaves = self._leaves()
        last: Head | None = None
        for head in self._heads():
            while len(pending) < head.size - (last.size if last else 0):
                more = next(leaves, None)
                if more is None:
                    break
                pending += more
            count = head.size - (last.size if last else 0)
            self._seal(head, last, pending[:count])
            del pending[:count]
            last = head
        if last is None:
            return
        beyond = seals.last_position(self._conn) + 1 - last.size
        if beyond > 0 and not self._report.findings:
            self._report.found(f"{beyond} leaves stand after position {last.size - 1}, under no head.")
        self._report.newest = last
        self._left_out(last)
        self._report.waiting = seals.waiting(self._conn, last.cursor)

    def _seal(self, head: Head, last: Head | None, leaves: Sequence[Leaf]) -> None:
        start = last.size if last else 0
        where = f"positions {start} to {head.size - 1}, sealed by head {head.number} at {head.at}"
        moved = last is not None and head.home != last.home
        self._report.moves += moved
        for expected, found in enumerate(leaves, start):
            if found.position != expected:
                self._whole = False
                self._report.found(f"Leaves are missing from position {expected} on ({where}).")
                break
            self._compare(found, head, moved=moved)
        if len(leaves) < head.size - start:
            self._whole = False
            self._report.found(f"{head.size - start - len(leaves)} leaves are missing ({where}).")
        if self._whole:
            for tier, number, node in self._frontier.extend(found.hash for found in leaves):
                if list(seals.hashes(self._conn, tier, number, number + 1)) != [node]:
                    self._report.found(f"The kept node {number} of tier {tier} was changed or removed.")
            if self._frontier.root() != head.root:
                self._whole = False
                ids = f"events {leaves[0].id} to {leaves[-1].id}" if leaves else "no event"
                self._report.found(f"The leaves do not lead to the signed root: {where} ({ids}).")
        self._times.append((head.ceiling, datetime.fromisoformat(head.at), head.number))
        del self._times[:-4096]
        self._report.events += len(leaves)
        self._report.heads += 1
        self._tell(self._report.events)

    def _compare(self, found: Leaf, head: Head, *, moved: bool) -> None:
        if found.event is None:
            self._report.found(f"Event {found.id} was removed (position {found.position}, head {head.number}).")
            return
        if tree.leaf_hash(leaf.entry(found.event)) != found.hash:
            self._report.found(
                f"Event {found.id} is not what was sealed (position {found.position}, head {head.number}): "
                f"{found.event[3]} {found.event[4]} at {found.event[2]}."
            )
            return
        if moved:
            return
        at = datetime.fromisoformat(found.event[2])
        before = bisect_right(self._times, found.xid, key=lambda time: time[0])
        if before and at < self._times[before - 1][1] - CLOCK:
            self._report.found(
                f"Event {found.id} says {found.event[2]}, but was written after head {self._times[before - 1][2]}: "
                f"put in afterwards (position {found.position})."
            )
        elif at > datetime.fromisoformat(head.at) + CLOCK:
            self._report.found(f"Event {found.id} says {found.event[2]}, after the head that sealed it.")

    def _left_out(self, last: Head) -> None:
        where = seals.home(self._conn)
        came = where.floor if where is not None and where.number > last.home else 0
        for row in seals.left_out(self._conn, last.cursor, limit=MOST):
            if row[0] > came:
                self._report.found(
                    f"Event {row[0]} ({row[3]} {row[4]} at {row[2]}) stands before what head {last.number} sealed, "
                    "and was not sealed: put in afterwards."
                )

    def _leaves(self) -> Iterator[Sequence[Leaf]]:
        start = 0
        while found := seals.leaves(self._conn, start, start + _AT_ONCE):
            yield found
            start += _AT_ONCE

    def _heads(self) -> Iterator[Head]:
        last: Signed | None = None
        number = size = 0
        while page := seals.heads(self._conn, after=number, limit=1000):
            for signed in page:
                try:
                    head = heads.verify(self._verifier, signed)
                except NotGenuine as error:
                    self._report.found(f"The head after head {number} is not genuine: {error}")
                    return
                before = heads.NONE_BEFORE if last is None else heads.fingerprint(last)
                if head.number != number + 1 or head.previous != before or head.size <= size:
                    self._report.found(
                        f"Head {head.number} does not follow head {number}: heads were removed or replaced."
                    )
                    return
                yield head
                last, number, size = signed, head.number, head.size


def _anchors(conn: Connection, verifier: Verifier, report: Report, anchored: Iterable[Signed]) -> None:
    newest = report.newest.number if report.newest else 0
    for signed in anchored:
        try:
            head = heads.verify(verifier, signed)
        except NotGenuine as error:
            report.found(f"A head among the anchored ones is not genuine: {error}")
            continue
        report.anchored += 1
        kept = seals.head_of(conn, head.number)
        if kept is None:
            report.found(
                f"Head {head.number} ({head.size} events at {head.at}) was anchored and is gone: the log, which ends "
                f"at head {newest}, was rolled back."
            )
        elif kept.statement != signed.statement:
            report.found(f"Head {head.number} is not the one that was anchored ({head.size} events at {head.at}).")
