"""The whole log as lines of text that anybody can check without a database: the events as hashed, and the signed heads.

A line is an event, or a head (it has `statement`). Events stand in the order of the tree, from position 0 on; a head
stands behind the last event that it covers. After the last head come the events that are not sealed yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from banksman.errors import ConfigurationError, InvalidInput, NotGenuine
from banksman.ledger import Connection, seals
from banksman.sealing import heads, leaf, tree
from banksman.sealing.heads import Head
from banksman.sealing.report import Kept, Report, Times, compare
from banksman.signing import Signed, Verifier

_AT_ONCE = 10_000
_HEADS = 1000


def lines(conn: Connection) -> Iterator[bytes]:
    """The log at the moment of this transaction, line by line. What is gone of it is not there."""
    size = number = 0
    end = seals.last_position(conn) + 1
    while page := seals.heads(conn, after=number, limit=_HEADS):
        for signed in page:
            head = heads.after(signed, number)
            for start in range(size, min(head.size, end), _AT_ONCE):
                for item in seals.leaves(conn, start, min(start + _AT_ONCE, head.size)):
                    if item.event is not None:
                        yield leaf.entry(item.event) + b"\n"
            yield json.dumps(heads.to_json(signed)).encode() + b"\n"
            size, number = head.size, head.number
    cursor = (0, 0)
    while rows := seals.loose(conn, cursor, limit=_AT_ONCE):
        for row in rows:
            yield leaf.entry(row) + b"\n"
        cursor = (rows[-1][1], rows[-1][0])


def check(
    log: Iterable[bytes],
    verifier: Verifier,
    *,
    anchored: Iterable[Kept] = (),
    tell: Callable[[int], object] = lambda _: None,
) -> Report:
    """What an export shows by itself; a `ConfigurationError` where it is none."""
    walk = _Walk(verifier, tell)
    for number, line in enumerate(log, 1):
        if not walk.read(line, number):
            break
    walk.end()
    compare(walk.report, verifier, anchored, walk.known.get)
    return walk.report


class _Walk:
    """Once through all lines, holding the events behind the last head and every head."""

    def __init__(self, verifier: Verifier, tell: Callable[[int], object]) -> None:
        self.report = Report()
        self.known: dict[int, Signed] = {}
        self._verifier, self._tell = verifier, tell
        self._frontier, self._times = tree.Frontier(), Times()
        self._whole = True
        self._pending: list[tuple[dict[str, Any] | None, bytes]] = []

    def read(self, line: bytes, number: int) -> bool:
        """Take in a line; False where nothing after it can be checked."""
        value = _read(line, number)
        if "statement" not in value:
            good = isinstance(value["id"], int) and isinstance(value["xid"], int) and isinstance(value["at"], str)
            if not good:
                self.report.found(f"Line {number}: the event's id and xid are no integers, or its time is no text.")
            self._pending.append((value if good else None, tree.leaf_hash(line.rstrip(b"\r\n"))))
            return True
        last = self.report.newest
        try:
            signed = heads.from_json(value)
            head = heads.verify(self._verifier, signed)
        except (InvalidInput, NotGenuine) as error:
            self.report.found(f"Line {number}: the head is not genuine: {error}")
            return False
        before = heads.NONE_BEFORE if last is None else heads.fingerprint(self.known[last.number])
        if head.number != (last.number if last else 0) + 1 or head.previous != before:
            self.report.found(f"Line {number}: head {head.number} does not follow the last one: heads were taken out.")
            return False
        self._seal(head, number)
        self.known[head.number] = signed
        self._tell(self.report.events)
        return True

    def end(self) -> None:
        """What stands after the last head is not sealed yet, or was put in."""
        last = self.report.newest
        self.report.waiting = len(self._pending)
        if last is None or self.report.findings:
            return
        for event, _ in self._pending:
            if event is not None and (event["xid"], event["id"]) <= last.cursor:
                who = f"{event['actor']} {event['action']} at {event['at']}"
                self.report.found(
                    f"Event {event['id']} ({who}) stands before what head {last.number} sealed, and was not sealed: "
                    "put in afterwards."
                )

    def _seal(self, head: Head, line: int) -> None:
        report, last, pending = self.report, self.report.newest, self._pending
        start = last.size if last else 0
        where = f"positions {start} to {head.size - 1}, sealed by head {head.number} at {head.at}, before line {line}"
        moved = last is not None and last.home != head.home
        if len(pending) != head.size - start:
            report.found(f"{head.size - start} events were sealed, and {len(pending)} are here: {where}.")
            self._whole = False
        elif self._whole:
            self._frontier.extend(leaf_hash for _, leaf_hash in pending)
            self._whole = self._frontier.root() == head.root
            if not self._whole:
                report.found(f"An event is not what was sealed, or not in its place: {where}.")
        for position, (event, _) in enumerate(pending, start):
            if event is None:
                continue
            doubt = self._times.doubt(event["id"], event["xid"], event["at"], position, head, moved=moved)
            if doubt is not None:
                report.found(doubt)
        self._times.sealed(head)
        report.moves += moved
        report.events += len(pending)
        report.heads += 1
        report.newest = head
        pending.clear()


def _read(line: bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
        if "statement" in value or {"id", "xid", "at", "actor", "action"} <= value.keys():
            return value
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise ConfigurationError(f"Line {number} is neither an event nor a head of `banksman audit export`.")
