"""Delivers notices: claim, ask for the links, compose, send, record, and never the network inside a transaction.

Each notice is delivered at least once. Whoever dies between sending and recording leaves a claim that runs out, and the
repeat is the same mail, with the same Message-ID, link and code. A notice that nobody needs any more (decided, changed,
run out, its reader gone) is dropped. A refusal for good buries it at once, any other failure after enough attempts; a
gateway that is away buries nothing. What was buried stays visible with its last error.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial

from banksman import ids, ledger, logs, tracing
from banksman.errors import NotFound
from banksman.ids import NoticeId
from banksman.ledger import Connection, audit, notices
from banksman.records import Event, Matter, Notice
from banksman.wire import Wire
from banksman_notifier import compose
from banksman_notifier.channels import Channel, ChannelError, Message, Opener
from banksman_notifier.gateway import Gateway, GatewayAway, Link
from banksman_notifier.turns import Claimed, Turn

Ways = Callable[[Opener], Channel]
Errand = Callable[[Ways, Turn], object]
Sort = Callable[[Connection, Sequence[Claimed], dict[NoticeId, Matter]], tuple[Sequence[Claimed], Sequence[Errand]]]

HANDFUL = 50
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 3600.0

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Office:
    """What delivering needs. `channels` maps a notice's channel to its way out; `copies` get every message as well."""

    pool: ledger.Pool
    wire: Wire
    gateway: Gateway
    channels: Mapping[str, Opener]
    copies: Sequence[Opener]
    max_attempts: int
    lease: timedelta = timedelta(minutes=5)
    """How long a claim counts: after that, whoever made it is taken for dead and the notice is sent by another."""
    sort: Sort = lambda _, claimed, __: (claimed, ())
    """Which of the claimed notices are told singly now, and what else is to be sent; the rest it has put off."""


def deliver(office: Office, only: Sequence[NoticeId] | None = None) -> int:
    """Due → sent, for these notices or for whatever is due; returns how many were claimed, at most a handful."""
    with ledger.transaction(office.pool) as conn:
        claimed = notices.claim(conn, only=only, lease=office.lease, limit=HANDFUL)
        matters = notices.matters(conn, [notice.id for notice, _ in claimed]) if claimed else {}
        turn = Turn(office.pool, office.lease, matters)
        singly, errands = office.sort(conn, claimed, matters)
    links = _links(office, [notice.id for notice, _ in singly if matters[notice.id].wanted])
    with ExitStack() as stack:
        # One connection for each channel, opened for the first message that needs it.
        def open_way(opener: Opener) -> Channel:
            return stack.enter_context(opener())

        way = cache(open_way)
        for notice, fence in turn.each(singly):
            matter = matters[notice.id]
            outcome = _attempt(office, notice, fence, matter, links=links, way=way)
            _settle(office, notice, matter, outcome)
        for errand in errands:
            errand(way, turn)
    return len(claimed)


Move = Callable[[Connection], Collection[NoticeId]]
Links = Mapping[NoticeId, Link | NotFound | GatewayAway]


def _links(office: Office, wanted: Sequence[NoticeId]) -> Links:
    """What the gateway mints for each of a handful, or why it does not, in one call."""
    try:
        return office.gateway.links(wanted) if wanted else {}
    except GatewayAway as error:
        return dict.fromkeys(wanted, error)


def _attempt(
    office: Office, notice: Notice, fence: int, matter: Matter, *, links: Links, way: Ways
) -> tuple[str, Move]:
    """Try once, and say what became of it: an event's name and the move that records it."""
    if not matter.wanted:
        return "notice.dropped", partial(notices.drop, claimed=[(notice.id, fence)])
    if notice.attempts > office.max_attempts:
        return _bury(notice, fence, "Its deliveries broke off before they could be recorded.")
    link = links[notice.id]
    if isinstance(link, GatewayAway):
        return _later(notice, fence, str(link), counted=False)
    try:
        if isinstance(link, NotFound):
            raise link
        if notice.channel not in office.channels:
            raise ChannelError(f"There is no channel {notice.channel!r} here.", retryable=True)
        message = compose.of_notice(notice.kind, matter, link)
        with tracing.span("notice", matter.run_id, kind=notice.kind, channel=notice.channel):
            way(office.channels[notice.channel]).send(message)
    except Exception as error:  # one notice that breaks must not hold up its handful
        if not isinstance(error, ChannelError | NotFound):
            log.exception("A notice could not be written.", notice=ids.show("ntc", notice.id))
        last = notice.attempts >= office.max_attempts
        if last or (isinstance(error, ChannelError) and not error.retryable):
            return _bury(notice, fence, str(error))
        return _later(notice, fence, str(error), counted=True)
    for opener in office.copies:
        copy(way(opener), message)
    return "notice.sent", partial(notices.sent, claimed=[(notice.id, fence)])


def _bury(notice: Notice, fence: int, error: str) -> tuple[str, Move]:
    log.error("A notice is dead: its reviewer was not told.", notice=ids.show("ntc", notice.id), error=error)
    return "notice.dead", partial(notices.bury, claimed=[(notice.id, fence)], error=error)


def _later(notice: Notice, fence: int, error: str, *, counted: bool) -> tuple[str, Move]:
    log.warning("A notice waits for another attempt.", notice=ids.show("ntc", notice.id), error=error)
    move = partial(
        notices.postpone,
        claimed=[(notice.id, fence)],
        error=error,
        delay=delay_after(notice.attempts if counted else 0),
        counted=counted,
    )
    return "notice.postponed", move


def delay_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts, spread a little; 0 where it was not really tried."""
    delay = min(_FIRST_DELAY * 4 ** max(attempts - 1, 0), _LONGEST_DELAY)
    return timedelta(seconds=delay * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, keeps no secret


def _settle(office: Office, notice: Notice, matter: Matter, outcome: tuple[str, Move]) -> None:
    """Record what became of a notice, unless a later claim has taken it over."""
    action, move = outcome
    event = Event(
        "notifier",
        action,
        matter.run_id,
        matter.request_id,
        {"notice": ids.show("ntc", notice.id), "person": ids.show("per", notice.person_id), "channel": notice.channel},
    )
    with ledger.transaction(office.pool) as conn:
        moved = move(conn)
        if moved and action in ("notice.sent", "notice.dead"):
            audit.append(conn, event)
    if moved and matter.run_id is not None:
        office.wire.changed(run=matter.run_id, request=matter.request_id)


def copy(channel: Channel, message: Message) -> None:
    """Give somebody else the message, too; nothing depends on it."""
    try:
        channel.send(message)
    except ChannelError as error:
        log.warning("A copy could not be written.", error=str(error))
