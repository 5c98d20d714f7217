"""Does the log still say what was sealed: every event hashed again, every root, every signature, every anchored head.

What was done to the log is told apart: an event that was changed, removed or put in afterwards; a leaf that was changed
along with its event; heads that were forged, removed or rolled back. Each finding says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from banksman.errors import NotGenuine
from banksman.ledger import Connection, seals
from banksman.ledger.seals import Leaf
from banksman.sealing import heads, leaf, tree
from banksman.sealing.heads import Head
from banksman.sealing.report import CLOCK, MOST, Kept, Report, Times, compare
from banksman.signing import Signed, Verifier

_AT_ONCE = 10_000


def check(
    conn: Connection, verifier: Verifier, *, anchored: Iterable[Kept] = (), tell: Callable[[int], object] | None = None
) -> Report:
    """Compare log, tree and heads; `tell` hears how many events have been checked."""
    report = Report()
    _Walk(conn, verifier, report, tell or (lambda _: None)).through()
    compare(report, verifier, anchored, lambda number: seals.head_of(conn, number))
    return report


class _Walk:
    """Once through all leaves, and the heads where their sizes are reached."""

    def __init__(self, conn: Connection, verifier: Verifier, report: Report, tell: Callable[[int], object]) -> None:
        self._conn, self._verifier, self._report, self._tell = conn, verifier, report, tell
        self._frontier = tree.Frontier()
        self._whole = True
        self._times = Times()

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
            if (bare := seals.last_position(self._conn) + 1) and not self._report.findings:
                self._report.found(f"{bare} leaves stand under no head: every head was removed.")
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
        self._times.sealed(head)
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
        doubt = self._times.doubt(found.id, found.xid, found.event[2], found.position, head, moved=moved)
        if doubt is not None:
            self._report.found(doubt)

    def _left_out(self, last: Head) -> None:
        where = seals.home(self._conn)
        moves = where is not None and where.number > last.home
        self._report.moves += moves
        # What was written in the new PostgreSQL before `banksman migrate` ran stands low, and is not old.
        came = where.floor if where is not None and moves else 0
        since = self._times.since - CLOCK
        for row in seals.left_out(self._conn, last.cursor, came=came, since=since, limit=MOST):
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
