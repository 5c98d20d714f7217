"""The inbox: queues of requests, searched and filtered, nearest deadline first, and their news as they happen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, StringConstraints

from banksman import ids, vault
from banksman.digest import Json
from banksman.errors import InvalidInput, NotAllowed, NotSignedIn
from banksman.ids import BatchId, RequestId, RunId
from banksman.ledger import inbox, keys, lookings
from banksman.ledger.inbox import Wanted
from banksman.states import Tier
from banksman_gateway import auth, door, drafts, events, html, pages, sessions
from banksman_gateway.events import Cursor, News
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

MOST = 100
"""How many requests a page of the inbox shows."""

router = APIRouter(include_in_schema=False)

_ID = re.compile(r"(bat|req|run)_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Queue:
    """One of the inbox's queues, in words."""

    name: inbox.Queue
    label: str
    title: str
    empty: str
    count: int = 0

    @property
    def query(self) -> str:
        """Its address after the slash; the first queue is the inbox itself."""
        return "" if self.name == "mine" else f"?queue={self.name}"

    @property
    def count_more(self) -> bool:
        """Whether counting stopped before the end."""
        return self.count >= COUNTED

    def heading(self, shown: int, *, more: bool) -> str:
        """How many there are, in a few words."""
        verb, _, rest = self.title.partition(" ")
        if shown > 1:
            return f"{shown}{'+' if more else ''} {self.title}"
        return f"{shown or 'Nothing'} {_ONE[verb]} {rest}"


_ONE = {"wait": "waits", "run": "runs", "have": "has", "are": "is"}

COUNTED = 100
"""So far are queues counted."""

QUEUES = (
    Queue("mine", "mine", "wait for you", "Nothing waits for you. A message comes when something does."),
    Queue("groups", "my groups", "wait for your groups", "Nothing waits for your groups."),
    Queue("expiring", "expiring", "run out within the hour", "Nothing of yours runs out within the hour."),
    Queue("escalated", "escalated", "have gone up the ladder", "Nothing has gone up the ladder."),
    Queue("outcome", "unknown outcome", "are of unknown outcome", "No call is in doubt."),
    Queue("resuming", "not yet resumed", "are decided and not yet resumed", "Every run that was decided has gone on."),
    Queue("others", "others", "wait for other people", "Nothing waits for other people."),
    Queue("done", "done", "are settled", "Nothing has been settled yet."),
)


class Filters(BaseModel):
    """Which requests to show."""

    queue: inbox.Queue = "mine"
    q: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] = ""
    tier: Tier | Literal[""] = ""
    after: Annotated[str, StringConstraints(max_length=100)] = ""

    @property
    def any(self) -> bool:
        """Whether something is left out of the queue."""
        return bool(self.q or self.tier)

    def wanted(self) -> Wanted:
        """What the ledger looks for: an id that was pasted is looked up as one."""
        tier = self.tier or None
        pasted = _ID.fullmatch(self.q)
        match pasted and pasted[1]:
            case "bat":
                return Wanted(tier=tier, batch_id=BatchId(ids.read("bat", self.q)))
            case "req":
                return Wanted(tier=tier, request_id=RequestId(ids.read("req", self.q)))
            case "run":
                return Wanted(tier=tier, run_id=RunId(ids.read("run", self.q)))
            case _:
                return Wanted(text=self.q, tier=tier)

    def beyond(self, last: inbox.Item) -> str:
        """The address of what comes after this item."""
        at = last.settled_at if self.queue == "done" else last.expires_at
        assert at is not None
        after = f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{last.id.hex}"
        chosen = {"queue": self.queue, "q": self.q, "tier": self.tier, "after": after}
        return "?" + urlencode({name: value for name, value in chosen.items() if value})


@router.get("/")
def show(wanted: Annotated[Filters, Query()], here: Here, session: SignedIn) -> Response:
    """One queue of the inbox; by default what waits for this person."""
    person = session.person
    if auth.own_only(person) is not None:
        return html.see("/runs")
    with door.transaction(here) as conn, vault.leniently():
        found = inbox.page(conn, person, wanted.queue, wanted.wanted(), after=_place(wanted.after), limit=MOST + 1)
        counted = inbox.counts(conn, person, most=COUNTED)
        # Where there is time for it: with nothing left to decide, or among what was decided.
        drafted = drafts.offered(conn, here, person) if wanted.queue == "done" or not found else []
    queues = [replace(queue, count=counted.get(queue.name, 0)) for queue in QUEUES]
    items, more = found[:MOST], len(found) > MOST
    return html.page(
        "inbox.html",
        **sessions.signed_in(here, session),
        queues=queues,
        queue=next(queue for queue in queues if queue.name == wanted.queue),
        filters=wanted,
        items=[(item, pages.gist(item)) for item in items],
        more=more,
        most=MOST,
        next=wanted.beyond(items[-1]) if more else None,
        elsewhere=_elsewhere(queues, wanted.queue),
        drafted=max((len(streak.decisions) for streak, _ in drafted), default=0),
    )


@router.get("/inbox/events")
async def follow(request: Request, here: Here, session: SignedIn) -> Response:
    """What happens to requests as it happens, to an open inbox, and who looks at them. It keeps no session alive."""
    held = sessions.hash_of(session.secret)
    told: dict[str, Json] = {}

    def look(cursor: Cursor) -> News:
        nonlocal told
        with door.transaction(here) as conn:
            person = keys.lives(conn, held, idle=sessions.IDLE)
            if person is None:
                raise NotSignedIn("Sign in first.")
            if auth.own_only(person) is not None:
                raise NotAllowed("Who has no role sees their own runs; follow one of those.")
            news = events.news_of_requests(conn, cursor)
            looking = lookings.of_others(conn, person.id, most=COUNTED)
        now: dict[str, Json] = {ids.show("req", request_id): [*names] for request_id, names in looking.items()}
        if now == told:
            return news
        told = now
        return replace(news, also={"looking": now})

    return await events.stream(here, look, run=None, last_id=request.headers.get("last-event-id"))


def _elsewhere(queues: Sequence[Queue], name: str) -> Sequence[str]:
    """Where else something waits, for somebody who looks at an empty queue."""
    if name != "mine":
        return ()
    return [f"{queue.heading(queue.count, more=queue.count_more)}." for queue in queues[1:-1] if queue.count]


def _place(text: str) -> tuple[datetime, RequestId] | None:
    if not text:
        return None
    try:
        at, _, hexes = text.partition("-")
        moment = datetime.strptime(at, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
        return moment, RequestId(ids.read("req", f"req_{hexes}"))
    except ValueError:
        raise InvalidInput("This is not a place in the inbox. Start from its first page.") from None
