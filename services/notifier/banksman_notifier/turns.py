"""Turns: what is still to be sent of a claim while the messages before it take their time.

One message may take as long as a person's slowest service (`apprise`: 5 URLs of 20 s), and the claim on those behind
it runs on. So nothing is begun after a third of the claim's time: the rest is put back, due at once, for whoever is
free. And before each message, once some time has passed, it is asked again whether the claim is still ours and whether
anybody still needs it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta

from banksman import ledger
from banksman.ids import NoticeId
from banksman.ledger import gathering as rows
from banksman.ledger import notices
from banksman.records import Matter, Notice

SECONDS = 1.0
"""So long is what was read of a claim taken to be as it was."""
_BEHIND = "The messages before it took too long, so it waits for its own turn."

Claimed = tuple[Notice, int]


class Turn:
    """A handful just claimed, and the matters of its notices, which are kept up to date."""

    def __init__(self, pool: ledger.Pool, lease: timedelta, matters: dict[NoticeId, Matter]) -> None:
        self.matters = matters
        self._pool = pool
        self._looked = time.monotonic()
        self._ends = self._looked + lease.total_seconds() / 3
        self._lost = set[NoticeId]()

    def each(self, claimed: Sequence[Claimed]) -> Generator[Claimed]:
        """One after the other, while there is time and as far as they are still ours."""
        for place, item in enumerate(claimed):
            left = self.left(claimed[place:])
            if not left:
                return
            if left[0] is item:
                yield item

    def left(self, claimed: Sequence[Claimed]) -> Sequence[Claimed]:
        """Those that are still ours; none of them, and all put back, when the time for beginning is over."""
        now = time.monotonic()
        if now >= min(self._ends, self._looked + SECONDS):
            self._look(now, [(notice.id, fence) for notice, fence in claimed])
        return [item for item in claimed if item[0].id not in self._lost]

    def _look(self, now: float, fences: notices.Fenced) -> None:
        with ledger.transaction(self._pool) as conn:
            if now >= self._ends:
                notices.postpone(conn, fences, error=_BEHIND, delay=timedelta(), counted=False)
                ours = set[NoticeId]()
            else:
                ours = rows.ours(conn, fences)
            for notice_id, matter in notices.matters(conn, ours).items():
                self.matters[notice_id] = replace(self.matters[notice_id], wanted=matter.wanted)
        self._looked = now
        self._lost.update(notice_id for notice_id, _ in fences if notice_id not in ours)
