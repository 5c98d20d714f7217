"""Event streams: what the audit log says, as it is said, to whoever watches a run, a batch or the inbox.

A stream reads the log and nothing else; the pulse only says when to look. Each event's id is its cursor, the pair
(transaction, number) below the horizon of running transactions, so a client that comes back with `Last-Event-ID`
misses nothing, not even what was committed late. Who may watch is checked again at each read: a revoked key or a
disabled person is cut off.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from anyio import to_thread
from fastapi import Response
from fastapi.responses import StreamingResponse

from banksman import ids, ledger
from banksman.digest import Json
from banksman.errors import BanksmanError, InvalidInput, NotAllowed, Unavailable
from banksman.ids import BatchId, RunId
from banksman.ledger import Connection, audit, batches, progress, runs, views
from banksman.records import Event
from banksman_gateway.door import Door
from banksman_gateway.parts import Parts

QUIET_SECONDS = 15.0
"""How long a stream says nothing before it says that it still lives; how often it looks by itself."""
POLL_SECONDS = 1.5
"""How often it looks while the broker is away."""
_FIRST_LOOK = 0.02
_CURSOR = re.compile(r"(\d{1,19})-(\d{1,18})")

Cursor = tuple[int, int]


@dataclass(frozen=True, slots=True)
class News:
    """What one look found: events, where to look on from, and whether there is nothing more to come."""

    events: Sequence[Event]
    cursor: Cursor
    over: bool = False
    more: bool = False
    """Whether there may be more already, so that the next look is not waited for."""
    also: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """What is said besides, by name: no event of the log, so nothing comes of missing it."""


Look = Callable[[Cursor], News]
"""One look at the log in a transaction of its own. It raises where the watcher may not (or no longer) look."""


async def of_run(way: Door, run_id: str, last_id: str | None) -> Response:
    """The stream of a run for an API caller: from the beginning, until the run is over."""
    wanted = RunId(ids.read("run", run_id))

    def look(cursor: Cursor) -> News:
        with way.enter() as (conn, caller):
            caller.must("runs:read")
            caller.must_see(runs.get(conn, wanted).requester_id, f"run {run_id}")
            return news_of_run(conn, wanted, cursor)

    return await stream(way.here, look, run=wanted, last_id=last_id or "0-0")


async def of_batch(way: Door, batch_id: str, last_id: str | None) -> Response:
    """The stream of a batch and its runs for an API caller: from the beginning, until all of them are over."""
    wanted = BatchId(ids.read("bat", batch_id))

    def look(cursor: Cursor) -> News:
        with way.enter() as (conn, caller):
            caller.must("runs:read")
            caller.must_see(batches.requester(conn, wanted), f"batch {batch_id}")
            found = progress.news(conn, wanted, cursor)
            return News(found.events, found.end, found.over, found.more)

    return await stream(way.here, look, run=None, last_id=last_id or "0-0")


async def of_requests(way: Door, last_id: str | None) -> Response:
    """The stream of all requests for an API caller who may see them all: from now on."""

    def look(cursor: Cursor) -> News:
        with way.enter() as (conn, caller):
            if caller.only_own("requests:read") is not None:
                raise NotAllowed("Who has no role sees their own runs; follow one of those.")
            return news_of_requests(conn, cursor)

    return await stream(way.here, look, run=None, last_id=last_id)


def news_of_run(conn: Connection, run_id: RunId, cursor: Cursor) -> News:
    """A run's events after a cursor."""
    events, over = views.news_of_run(conn, run_id, cursor)
    return News(events, _last(events, cursor), over)


def news_of_requests(conn: Connection, cursor: Cursor) -> News:
    """All requests' events after a cursor; where nothing was found, the next look begins at the horizon."""
    horizon = audit.horizon(conn)
    events = audit.since(conn, cursor, requests=True)
    return News(events, _last(events, max(cursor, horizon)))


async def stream(here: Parts, look: Look, *, run: RunId | None, last_id: str | None) -> Response:
    """A response that follows `look` from `last_id` on (None: from now). What `look` refuses at first is refused as
    any other call would be; 204 tells a browser that comes back after the end to stay away.
    """
    cursor = await to_thread.run_sync(_now, here) if last_id is None else _read(last_id)
    first = await to_thread.run_sync(look, cursor)
    if first.over and not first.events:
        return Response(status_code=204)
    return StreamingResponse(
        _follow(here, look, first, None if run is None else run.hex),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _follow(here: Parts, look: Look, news: News, run: str | None) -> AsyncGenerator[str, None]:
    with here.pulse.watching(run) as watcher:
        yield "retry: 1000\n\n"
        pause, said_at = _FIRST_LOOK, time.monotonic()
        while not here.pulse.over:
            for event in news.events:
                yield _said(event)
            for name, body in news.also.items():
                yield f"event: {name}\ndata: {json.dumps(body)}\n\n"
            if news.over:
                yield "event: over\ndata: {}\n\n"
                return
            if news.events or news.also:
                pause, said_at = _FIRST_LOOK, time.monotonic()
            longest = QUIET_SECONDS if here.pulse.beats else POLL_SECONDS
            if news.more or await watcher.wait(min(pause, longest)):
                pause = _FIRST_LOOK
            if time.monotonic() - said_at >= QUIET_SECONDS:  # though others are told of all the time
                yield ": still here\n\n"
                said_at = time.monotonic()
            # A commit may be announced before it is below the horizon: look again soon, then ever more rarely.
            pause = min(pause * 4, QUIET_SECONDS)
            try:
                news = await to_thread.run_sync(look, news.cursor)
            except Unavailable:
                news = News((), news.cursor)
                await asyncio.sleep(POLL_SECONDS)
            except BanksmanError:
                return


def _said(event: Event) -> str:
    assert event.cursor is not None
    assert event.at is not None
    body: dict[str, Json] = {
        "action": event.action,
        "actor": event.actor,
        "at": event.at.isoformat(),
        "run_id": None if event.run_id is None else ids.show("run", event.run_id),
        "request_id": None if event.request_id is None else ids.show("req", event.request_id),
        "detail": dict(event.body),
    }
    xid, number = event.cursor
    return f"id: {xid}-{number}\nevent: {event.action}\ndata: {json.dumps(body)}\n\n"


def _last(events: Sequence[Event], otherwise: Cursor) -> Cursor:
    cursor = events[-1].cursor if events else None
    return otherwise if cursor is None else cursor


def _now(here: Parts) -> Cursor:
    with ledger.transaction(here.pool) as conn:
        return audit.horizon(conn)


def _read(last_id: str) -> Cursor:
    match = _CURSOR.fullmatch(last_id)
    if match is None or int(match[1]) >= 2**63 or int(match[2]) >= 2**63:
        raise InvalidInput("Last-Event-ID is not an id that this stream gave.")
    return int(match[1]), int(match[2])
