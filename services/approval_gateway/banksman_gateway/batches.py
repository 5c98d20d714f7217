"""Batches over HTTP, once they are accepted: how far they are, and what is done with all of one at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from banksman import ids
from banksman.errors import Conflict, NotAllowed
from banksman.ids import BatchId, RunId
from banksman.ledger import Connection, audit, progress
from banksman.ledger import batches as rows
from banksman.ledger.progress import Used
from banksman.records import Batch, Event, Person
from banksman_gateway import auth, door, events, problems, shapes
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import StrictRoute
from banksman_gateway.parts import Parts

PACE = timedelta(minutes=10)
"""So far back does the pace look."""

LARGE = 10_000
"""From so many runs on is a batch's use worked out only every few seconds."""
_FRESH_SECONDS = 10.0
_REMEMBERED = 100
_ROUNDS = 20
_PAUSE = 0.05

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=StrictRoute, responses=problems.ALSO)

BatchPath = Annotated[str, Path(examples=["bat_0192f0c1a2b37c4d8e5f60718293a4b5"])]


@router.get("/{batch_id}", response_model=shapes.BatchNow)
def get_batch(batch_id: BatchPath, way: ToRead) -> Response:
    """A batch as it stands: how many of its runs are in which state, how fast they end, whom they wait for, what they
    have used.
    """
    with way.enter() as (conn, caller):
        caller.must("runs:read")
        batch = seen(conn, caller.person, batch_id)
        pace = progress.pace(conn, batch.id, window=PACE)
        waiting = sum(group.count for group in progress.waiting(conn, batch.id))
        consumed = used(way.here, conn, batch)
    return door.respond(200, door.to_bytes(shapes.batch_now(batch, pace, waiting, consumed)))


@router.get(
    "/{batch_id}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "Over; nothing is new."}},
)
async def stream_batch_events(batch_id: BatchPath, request: Request, way: ToRead) -> Response:
    """What happens to the batch and its runs as it happens (server-sent events), from the beginning or after
    `Last-Event-ID`.
    """
    return await events.of_batch(way, batch_id, request.headers.get("last-event-id"))


@router.post("/{batch_id}/cancel", response_model=shapes.Batch)
def cancel_batch(batch_id: BatchPath, way: ToAct) -> Response:
    """Stop a batch. From now on no run of it starts; what waits is cancelled, what runs is stopped by its workers."""
    with way.enter() as (conn, caller):
        caller.must("runs:cancel", "votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        batch = seen(conn, caller.person, batch_id)
        caller.must_steer(batch)
        mark(conn, batch, caller.actor)
        # Kept with the mark, in case that this process ends before it has counted what was stopped.
        way.answer(conn, caller, 200, shapes.batch(rows.get(conn, batch.id)))
    finish_cancelling(way.here, batch.id)
    with way.enter() as (conn, caller):
        return way.answer(conn, caller, 200, shapes.batch(rows.get(conn, batch.id)))


@router.post("/{batch_id}/pause", response_model=shapes.Batch)
def pause_batch(batch_id: BatchPath, way: ToAct) -> Response:
    """Let nothing of a batch start until it is resumed, neither new runs nor decided ones; what runs goes on to its
    next stop.
    """
    return _steer(batch_id, way, pause)


@router.post("/{batch_id}/resume", response_model=shapes.Batch)
def resume_batch(batch_id: BatchPath, way: ToAct) -> Response:
    """Let a paused batch go on where it was."""
    return _steer(batch_id, way, resume)


@router.post("/{batch_id}/retry", response_model=shapes.Batch)
def retry_batch(batch_id: BatchPath, way: ToAct) -> Response:
    """Give every failed and every stuck run of a batch another chance, but for those that a person has failed. Nothing
    that finished is done again. A person's to say, never a machine's.
    """
    return _steer(batch_id, way, retry, by_people=True)


def pause(conn: Connection, batch: Batch, actor: str) -> None:
    """Not paused → paused, for a batch that is not over."""
    _must_live(batch)
    if rows.pause(conn, batch.id, actor):
        audit.append(conn, Event(actor, "batch.paused", body={"batch": ids.show("bat", batch.id)}))


def resume(conn: Connection, batch: Batch, actor: str) -> None:
    """Paused → not paused."""
    if rows.resume(conn, batch.id):
        audit.append(conn, Event(actor, "batch.resumed", body={"batch": ids.show("bat", batch.id)}))


def retry(conn: Connection, batch: Batch, actor: str) -> None:
    """Failed or stuck → queued or waiting, each run of a batch that was not cancelled."""
    count = rows.retry(conn, batch.id, actor)
    if count is None:
        raise Conflict("This batch was cancelled: submit those runs as another one.", {"status": "cancelled"})
    told = {"batch": ids.show("bat", batch.id), "runs": count}
    audit.append(conn, Event(actor, "batch.retried", body=told))


def _must_live(batch: Batch) -> None:
    if batch.cancelled_at is not None or batch.finished_at is not None:
        state = "finished" if batch.cancelled_at is None else "cancelled"
        raise Conflict(f"This batch is over: it was {state}.", {"status": state})


def _steer(
    batch_id: str, way: door.Once, move: Callable[[Connection, Batch, str], None], *, by_people: bool = False
) -> Response:
    """One move of a batch by a caller who may, and the batch after it."""
    with way.enter() as (conn, caller):
        if by_people and caller.person is None:
            raise NotAllowed("What failed or is stuck waits for a person: use a personal token.")
        caller.must("runs:cancel", "votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        batch = seen(conn, caller.person, batch_id)
        caller.must_steer(batch)
        move(conn, batch, caller.actor)
        return way.answer(conn, caller, 200, shapes.batch(rows.get(conn, batch.id)))


def press(here: Parts) -> None:
    """Mark the batches that wait for reviewers, as BANKSMAN_MAX_OPEN limits what a group has to decide."""
    with door.transaction(here) as conn:
        rows.press(conn, here.settings.max_open)


def mark(conn: Connection, batch: Batch, actor: str) -> None:
    """Neither cancelled nor over → cancelled: no run of it starts any more; `finish_cancelling` stops the others."""
    if batch.cancelled_at is None:
        _must_live(batch)
    if rows.mark(conn, batch.id, actor):
        audit.append(conn, Event(actor, "batch.cancelled", body={"batch": ids.show("bat", batch.id)}))


def finish_cancelling(here: Parts, batch_id: BatchId) -> bool:
    """Every run of a cancelled batch → stopped or asked to; False when some were held by others all the time, and the
    sweep goes on.
    """
    for _ in range(_ROUNDS):
        after: RunId | None = None
        more = True
        while more:
            with door.transaction(here) as conn:
                after = rows.stop_some(conn, batch_id, after)
            more = after is not None
        with door.transaction(here) as conn:
            if rows.sweep(conn, batch_id):
                return True
        time.sleep(_PAUSE)
    return False


def cancel_marked(here: Parts) -> None:
    """Go on with every batch whose cancelling broke off."""
    with door.transaction(here) as conn:
        marked = rows.cancelling(conn)
    for batch_id in marked:
        finish_cancelling(here, batch_id)


def used(here: Parts, conn: Connection, batch: Batch) -> Used:
    """What its runs have used; of a large batch what they had a moment ago, because each of them is read for it."""
    if sum(batch.runs.values()) < LARGE:
        return progress.used(conn, batch.id)
    now = time.monotonic()
    known = here.batches_used.get(batch.id)
    if known is None or now - known[0] > _FRESH_SECONDS:
        known = here.batches_used[batch.id] = (now, progress.used(conn, batch.id))
        while len(here.batches_used) > _REMEMBERED:
            here.batches_used.pop(next(iter(here.batches_used)), None)
    return known[1]


def seen(conn: Connection, person: Person | None, batch_id: str) -> Batch:
    """The batch, for somebody who may see it, as a machine may; for the others there is none."""
    batch = rows.get(conn, BatchId(ids.read("bat", batch_id)))
    auth.must_see(person, batch.requester_id, f"batch {batch_id}")
    return batch


def must_see(conn: Connection, person: Person | None, batch_id: str) -> BatchId:
    """The id of a batch that somebody may see, without counting how far it is."""
    wanted = BatchId(ids.read("bat", batch_id))
    auth.must_see(person, rows.requester(conn, wanted), f"batch {batch_id}")
    return wanted
