"""Batches over HTTP: many runs in one call, one as JSON on each line; all of them are accepted, or none.

The body goes to a file of its own as it arrives, so that a large one takes no memory, and is read from there line by
line in one transaction.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from banksman import digest, ids
from banksman.errors import InvalidInput
from banksman.ids import BatchId, RunId
from banksman.ledger import Connection, agents, audit
from banksman.ledger import batches as rows
from banksman.records import Batch, Event, NewRun
from banksman_gateway import door, problems, runs, shapes
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct, ToRead, ToStream
from banksman_gateway.intake import MOST_BYTES, LinesRoute, Name, StrictRoute
from banksman_gateway.parts import Parts
from banksman_gateway.runs import Submission, Submitter

MOST_RUNS = 10_000

_AT_ONCE = 500
_AT_ONCE_BYTES = 4 * 1024 * 1024
_MOST_ERRORS = 20
_ROUNDS = 20
_PAUSE = 0.05

lines = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=LinesRoute, responses=problems.ALSO)
router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=StrictRoute, responses=problems.ALSO)

BatchPath = Annotated[str, Path(examples=["bat_0192f0c1a2b37c4d8e5f60718293a4b5"])]

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": {"schema": {"type": "string", "description": "One run on each line."}}},
    }
}


@lines.post("", status_code=201, response_model=shapes.Batch, openapi_extra=_BODY)
async def submit_batch(
    request: Request, way: ToStream, name: Annotated[Name | None, Query(description="What people call it.")] = None
) -> Response:
    """Submit many runs, on each line one as for `POST /v1/runs`. All are accepted, or none and the faults named."""
    await to_thread.run_sync(_may_submit, way)  # before a large body is taken in
    seen = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(max_size=MOST_BYTES) as file:
        async for chunk in request.stream():
            seen.update(chunk)
            await to_thread.run_sync(file.write, chunk)
        file.seek(0)
        way.about({"name": name, "sha256": seen.hexdigest()})
        return await to_thread.run_sync(_submit, way, file, name)


@router.get("/{batch_id}", response_model=shapes.Batch)
def get_batch(batch_id: BatchPath, way: ToRead) -> Response:
    """A batch as it stands: how many of its runs are in which state."""
    with way.enter() as (conn, caller):
        caller.must("runs:read")
        batch = _seen(conn, caller, batch_id)
    return door.respond(200, door.to_bytes(shapes.batch(batch)))


@router.post("/{batch_id}/cancel", response_model=shapes.Batch)
def cancel_batch(batch_id: BatchPath, way: ToAct) -> Response:
    """Stop a batch. From now on no run of it starts; what waits is cancelled, what runs is stopped by its workers."""
    with way.enter() as (conn, caller):
        caller.must("runs:cancel", "votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        batch = _seen(conn, caller, batch_id)
        caller.must_steer(batch)
        mark(conn, batch.id, caller.actor)
        # Kept with the mark, in case that this process ends before it has counted what was stopped.
        way.answer(conn, caller, 200, shapes.batch(rows.get(conn, batch.id)))
    finish_cancelling(way.here, batch.id)
    with way.enter() as (conn, caller):
        return way.answer(conn, caller, 200, shapes.batch(rows.get(conn, batch.id)))


def mark(conn: Connection, batch_id: BatchId, actor: str) -> None:
    """Not cancelled → cancelled: no run of it starts any more; `finish_cancelling` stops the others."""
    if rows.mark(conn, batch_id, actor):
        audit.append(conn, Event(actor, "batch.cancelled", body={"batch": ids.show("bat", batch_id)}))


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


def _may_submit(way: door.Once) -> None:
    with way.enter() as (_, caller):
        caller.must("runs:submit")


def _submit(way: door.Once, file: IO[bytes], name: str | None) -> Response:
    with way.enter() as (conn, caller):
        caller.must("runs:submit")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        batch = _accept(conn, caller, file, name)
        return way.answer(conn, caller, 201, shapes.batch(batch))


def _accept(conn: Connection, caller: Caller, file: IO[bytes], name: str | None) -> Batch:
    batch_id = BatchId(ids.new())
    by = runs.submitter(conn, None, caller)
    rows.create(conn, batch_id, name=name, requester=by.requester, requester_id=by.requester_id)
    reader = _Reader(conn, caller)
    part: list[NewRun] = []
    total = size = 0
    for new, length in reader.read(file):
        total += 1
        if total > MOST_RUNS:
            raise InvalidInput(f"A batch may have {MOST_RUNS:,} runs. Send the others as another batch.")
        if reader.wrong:
            continue
        part.append(new)
        size += length
        if len(part) >= _AT_ONCE or size >= _AT_ONCE_BYTES:
            rows.load(conn, batch_id, part, actor=caller.actor)
            part, size = [], 0
    if reader.wrong:
        raise RequestValidationError(reader.wrong)
    if not total:
        raise InvalidInput("There is no run in the body: send one as JSON on each line.")
    rows.load(conn, batch_id, part, actor=caller.actor)
    audit.append(conn, Event(caller.actor, "batch.submitted", body={"batch": ids.show("bat", batch_id), "runs": total}))
    return rows.get(conn, batch_id)


class _Reader:
    """Lines → runs. What is wrong with a line is noted, and the others are read all the same, up to so many faults."""

    def __init__(self, conn: Connection, caller: Caller) -> None:
        self._conn, self._caller = conn, caller
        self._known = agents.names(conn)
        self._by: dict[str | None, Submitter] = {}
        self.wrong: list[dict[str, Any]] = []

    def read(self, file: IO[bytes]) -> Iterator[tuple[NewRun, int]]:
        """Each run with the length of its line."""
        number = 0
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            if len(line) > MOST_BYTES:
                raise InvalidInput(f"Line {number} is longer than {MOST_BYTES:,} bytes.")
            if not line.strip():
                continue
            try:
                asked = Submission.model_validate(digest.parse(line, what="The line", limit=MOST_BYTES))
                yield runs.new_run(asked, self._submitter(asked.requester), self._known), len(line)
            except ValidationError as error:
                self.wrong += [{"loc": (f"line {number}", *item["loc"]), "msg": item["msg"]} for item in error.errors()]
            except InvalidInput as error:
                self.wrong.append({"loc": (f"line {number}",), "msg": str(error)})
            if len(self.wrong) >= _MOST_ERRORS:
                return

    def _submitter(self, requester: str | None) -> Submitter:
        if requester not in self._by:
            self._by[requester] = runs.submitter(self._conn, requester, self._caller)
        return self._by[requester]


def _seen(conn: Connection, caller: Caller, batch_id: str) -> Batch:
    """The batch, for a caller who may see it; for the others there is none."""
    batch = rows.get(conn, BatchId(ids.read("bat", batch_id)))
    caller.must_see(batch.requester_id, f"batch {batch_id}")
    return batch
