"""Gathering: what goes at once, what waits for a summary, what waits for the end of quiet hours.

The first message to an inbox that was quiet goes at once; so does everything of tier high. What comes within the
window after it is held, and told in one summary when the window ends. The window is as long as the person or the
settings say, and doubles with each further message about one run whose requests nobody has answered, up to a day,
and never past a quarter of the time that people have to decide.

Notices stay rows of their own. Holding one moves its `due_at`, which is no attempt, and keeps the reason. Whoever
tells a summary takes everything with it that waits for the person, so of the held rows only the first is due when
the window ends: two notifiers do not come for one person at the same moment, and where they do, the row in `inboxes`
makes one of them wait and find that the other was there.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from banksman import ids, ledger, logs
from banksman.ids import NoticeId, PersonId
from banksman.ledger import Connection, audit, notices, preferences
from banksman.ledger import gathering as rows
from banksman.records import Event, Matter, Notice, Preferences, Waiting
from banksman.states import Tier
from banksman_notifier import compose, quiet, receipts
from banksman_notifier.channels import ChannelError
from banksman_notifier.deliver import Errand, Office, Ways, copy, delay_after
from banksman_notifier.gateway import GatewayAway
from banksman_notifier.turns import Claimed, Turn

_MOST = 10_000
_LONGEST = timedelta(days=1)
_BEHIND_THE_FIRST = timedelta(seconds=30)
_AT_ONCE = frozenset({"sign_in", "test"})
_TELLS_ONCE = frozenset({"request", "reminder", "escalation"})

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Windows:
    """How long things are gathered for those who say nothing else; zero gathers nothing."""

    medium: timedelta = timedelta(minutes=10)
    low: timedelta = timedelta(hours=1)

    def of(self, tier: Tier | None, chosen: Preferences) -> timedelta:
        """The window of a tier, for somebody."""
        if tier is Tier.LOW:
            return self.low if chosen.gather_low is None else chosen.gather_low
        return self.medium if chosen.gather_medium is None else chosen.gather_medium


Held = tuple[NoticeId, int, timedelta, str]


def sort(
    office: Office, windows: Windows, conn: Connection, claimed: Sequence[Claimed], matters: dict[NoticeId, Matter]
) -> tuple[Sequence[Claimed], Sequence[Errand]]:
    """Claimed notices → those to be told singly now, and summaries to be sent; the others are held, and why.

    A summary takes more of what waits for its person, and the matter of what comes to be told singly is in `matters`.
    """
    for notice, _ in claimed:
        if notice.kind == "receipt":
            matters[notice.id] = receipts.fill(conn, notice, matters[notice.id])
    singly = [item for item in claimed if item[0].kind in _AT_ONCE]
    mine = defaultdict[PersonId, list[Claimed]](list)
    for notice, fence in claimed:
        if notice.kind not in _AT_ONCE:
            mine[notice.person_id].append((notice, fence))
    if not mine:
        return singly, ()
    facts = rows.waiting(conn, [notice.id for items in mine.values() for notice, _ in items])
    for notice_id, known in facts.items():
        matters[notice_id] = replace(matters[notice_id], thread=known.thread)
    chosen, inboxes = preferences.of(conn, mine), rows.look(conn, mine)
    errands, held = list[Errand](), dict[PersonId, list[Held]]()
    for person, items in mine.items():
        likes = chosen.get(person, Preferences())
        desk = _Desk(conn, office, windows, likes, *inboxes[person], facts, matters)
        told, summary, held[person] = desk.sort(items)
        if len(summary) > 1:
            errands.append(partial(_send, office, summary, likes.channel))
        else:
            told += summary
        if likes.channel != "email" or any(item[0].id not in facts or facts[item[0].id].held for item in told):
            rows.route(conn, [notice.id for notice, _ in told], likes.channel)
        singly += [(replace(notice, channel=likes.channel), fence) for notice, fence in told]
    if any(held.values()):
        rows.hold(conn, _one_first(held, rows.held_for(conn, mine)))
    return singly, errands


@dataclass(frozen=True, slots=True)
class _Desk:
    """One person's notices, under the lock of their inbox. `ago` is how long ago they were told something."""

    conn: Connection
    office: Office
    windows: Windows
    likes: Preferences
    now: datetime
    ago: timedelta | None
    facts: Mapping[NoticeId, Waiting]
    matters: dict[NoticeId, Matter]

    def sort(self, items: Sequence[Claimed]) -> tuple[list[Claimed], Sequence[Claimed], list[Held]]:
        """What is told singly (or dropped there, where nobody needs it), what in one summary, what is held."""
        singly, gathered, held = list[Claimed](), list[Claimed](), list[Held]()
        loud_at = quiet.over_at(self.now, self.likes.quiet)
        for item in items:
            notice, fence = item
            high = self.facts[notice.id].tier is Tier.HIGH
            if loud_at is not None and self.matters[notice.id].wanted and (not high or self.likes.hold_high):
                held.append((notice.id, fence, loud_at - self.now, f"Quiet hours: held until {_moment(loud_at)}."))
            elif high or loud_at is not None or not self._window(notice):
                singly.append(item)
            else:
                gathered.append(item)
        if any(self._over(notice) for notice, _ in gathered):
            summary = [item for item in gathered if self._wanted(item)] + self._taken(items[0][0].person_id)
            summary = self._each_once(summary)
            if summary:
                rows.tell(self.conn, items[0][0].person_id)
            return singly + [item for item in gathered if not self._wanted(item)], summary, held
        for item in gathered:
            if self._wanted(item):
                left = self._window(item[0]) - (self.ago or timedelta())
                until = _moment(self.now + left)
                held.append((item[0].id, item[1], left, f"Gathered: told in a summary at {until} or before."))
            else:
                singly.append(item)
        return singly, (), held

    def _wanted(self, item: Claimed) -> bool:
        return self.matters[item[0].id].wanted

    def _over(self, notice: Notice) -> bool:
        """Whether its turn has come. What was tried in vain had its turn."""
        return self.ago is None or self.ago >= self._window(notice) or self.facts[notice.id].tried

    def _window(self, notice: Notice) -> timedelta:
        """Longer with each further unanswered message about the run, but a quarter of the time to decide at most."""
        known, matter = self.facts[notice.id], self.matters[notice.id]
        if known.tier is None:
            return timedelta()
        doubled = self.windows.of(known.tier, self.likes) * 2 ** min(max(0, known.told - 1), 16)
        return min(doubled, _LONGEST, (matter.expires_at - matter.created_at) / 4)

    def _taken(self, person: PersonId) -> list[Claimed]:
        """What else waits for the person; what nobody needs any more is dropped here."""
        taken = rows.take(self.conn, person, lease=self.office.lease, limit=_MOST)
        if taken:
            self.matters.update(notices.matters(self.conn, [notice.id for notice, _ in taken]))
        notices.drop(self.conn, [(item[0].id, item[1]) for item in taken if not self._wanted(item)])
        return [item for item in taken if self._wanted(item)]

    def _each_once(self, items: Sequence[Claimed]) -> Sequence[Claimed]:
        """One notice for each request, the newest: nobody is told that it waits and reminded in one breath."""
        newest: dict[object, Claimed] = {}
        for item in sorted(items, key=lambda item: item[0].id):
            notice = item[0]
            newest[notice.request_id if notice.kind in _TELLS_ONCE else notice.id] = item
        kept = {notice.id for notice, _ in newest.values()}
        notices.drop(self.conn, [(notice.id, fence) for notice, fence in items if notice.id not in kept])
        return list(newest.values())


def _one_first(held: Mapping[PersonId, Sequence[Held]], waiting: set[PersonId]) -> Sequence[Held]:
    """The same, but for each person only the first comes due on time; the others only where it did not take them."""
    out: list[Held] = []
    for person, items in held.items():
        soonest = min(items, key=lambda item: item[2], default=None)
        for item in items:
            behind = timedelta() if item is soonest and person not in waiting else _BEHIND_THE_FIRST
            out.append((item[0], item[1], item[2] + behind, item[3]))
    return out


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _send(office: Office, summary: Sequence[Claimed], channel: str, ways: Ways, turn: Turn) -> None:
    """One summary: compose, send, and record what became of each notice in it."""
    group = _left(office, summary, turn)
    if not group:
        return
    claimed = [(notice.id, fence) for notice, fence, _ in group]
    attempts = max(notice.attempts for notice, _, _ in group)
    action, move = "notice.postponed", None
    if attempts > office.max_attempts:
        action, move = (
            "notice.dead",
            partial(notices.bury, error="Its deliveries broke off before they could be recorded."),
        )
    else:
        try:
            home = office.gateway.home()
            with ledger.transaction(office.pool) as conn:
                lines = rows.lines(conn, [notice for notice, _ in claimed])
            if channel not in office.channels:
                raise ChannelError(f"There is no channel {channel!r} here.", retryable=True)
            message = compose.of_summary([matter for _, _, matter in group], _name(claimed), lines, home)
            ways(office.channels[channel]).send(message)
            action, move = "notice.sent", notices.sent
            for opener in office.copies:
                copy(ways(opener), message)
        except GatewayAway as error:
            move = partial(notices.postpone, error=str(error), delay=delay_after(0), counted=False)
        except Exception as error:  # one summary that breaks must not hold up the next
            if not isinstance(error, ChannelError):
                log.exception("A summary could not be written.", notices=len(claimed))
            if attempts >= office.max_attempts or (isinstance(error, ChannelError) and not error.retryable):
                action, move = "notice.dead", partial(notices.bury, error=str(error))
            else:
                move = partial(notices.postpone, error=str(error), delay=delay_after(attempts), counted=True)
    log.info("A summary was tried.", notices=len(claimed), became=action)
    with ledger.transaction(office.pool) as conn:
        moved = move(conn, claimed)
        if action != "notice.postponed":
            audit.append(
                conn, *(_event(action, notice, matter, channel) for notice, _, matter in group if notice.id in moved)
            )
    for run in {matter.run_id for _, _, matter in group[:100]}:
        if run is not None:
            office.wire.changed(run=run)


def _left(office: Office, summary: Sequence[Claimed], turn: Turn) -> Sequence[tuple[Notice, int, Matter]]:
    """What of a summary is still ours and wanted when its turn comes."""
    group = [(notice, fence, turn.matters[notice.id]) for notice, fence in turn.left(summary)]
    if unwanted := [(notice.id, fence) for notice, fence, matter in group if not matter.wanted]:
        with ledger.transaction(office.pool) as conn:
            notices.drop(conn, unwanted)
    return [item for item in group if item[2].wanted]


def _event(action: str, notice: Notice, matter: Matter, channel: str) -> Event:
    body = {"notice": ids.show("ntc", notice.id), "person": ids.show("per", notice.person_id), "channel": channel}
    return Event("notifier", action, matter.run_id, matter.request_id, body | {"summary": True})


def _name(claimed: notices.Fenced) -> NoticeId:
    """What the summary of exactly these notices is called, so that a repeat of it is the same mail."""
    text = b"".join(sorted(notice.bytes for notice, _ in claimed))
    return NoticeId(UUID(bytes=hashlib.sha256(b"banksman/summary\0" + text).digest()[:16]))
