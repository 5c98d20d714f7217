"""Submitting a batch: many runs in one call, one as JSON on each line, as they are or in gzip.

The body goes to a file of its own as it arrives, so that a large one takes no memory, and is read from there line by
line in one transaction. By default all of it is accepted or none; who says `on_error=skip` has the good lines accepted
and is told which are not.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import IO, Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from banksman import digest, ids
from banksman.errors import InvalidInput
from banksman.ids import BatchId
from banksman.ledger import Connection, agents, audit
from banksman.ledger import batches as rows
from banksman.records import Event, NewRun
from banksman_gateway import door, inflating, problems, runs, shapes
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToStream
from banksman_gateway.intake import MOST_BATCH_BYTES, MOST_BYTES, LinesRoute, Name
from banksman_gateway.runs import Submission, Submitter

MOST_RUNS = 100_000
MOST_OTHER_LINES = 1_000
"""So many lines may there be beyond that, which are faulty or blank."""
MOST_LISTED = 100
"""So many of the lines that were skipped are named one by one."""

_AT_ONCE = 500
_AT_ONCE_BYTES = 4 * 1024 * 1024
_MOST_ERRORS = 20

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=LinesRoute, responses=problems.ALSO)

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": {"schema": {"type": "string", "description": "One run on each line."}}},
    }
}


class Line(Submission):
    """A run of a batch."""

    key: Annotated[Name | None, Field(description="What the caller calls it; its results carry it.")] = None


@router.post("", status_code=201, response_model=shapes.Submitted, openapi_extra=_BODY)
async def submit_batch(
    request: Request,
    way: ToStream,
    name: Annotated[Name | None, Query(description="What people call it.")] = None,
    on_error: Annotated[
        Literal["refuse", "skip"], Query(description="What becomes of the good lines where others are faulty.")
    ] = "refuse",
) -> Response:
    """Submit many runs, on each line one as for `POST /v1/runs`, and a `key`. All are accepted, or none and the faults
    named; with `on_error=skip` the good ones, and the others are named.
    """
    await to_thread.run_sync(_may_submit, way)  # before a large body is taken in
    reading = inflating.of(request.headers.get("content-encoding"), most=MOST_BATCH_BYTES)
    seen = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(max_size=MOST_BYTES) as file:

        def take(chunk: bytes) -> None:
            for part in reading.feed(chunk):
                seen.update(part)
                file.write(part)

        async for chunk in request.stream():
            await to_thread.run_sync(take, chunk)
        reading.end()
        file.seek(0)
        way.about({"name": name, "sha256": seen.hexdigest(), "on_error": on_error})
        return await to_thread.run_sync(_submit, way, file, name, on_error == "skip")


def _may_submit(way: door.Once) -> None:
    with way.enter() as (_, caller):
        caller.must("runs:submit")


def _submit(way: door.Once, file: IO[bytes], name: str | None, skipping: bool) -> Response:
    with way.enter() as (conn, caller):
        caller.must("runs:submit")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        made = _accept(conn, caller, file, name, skipping=skipping)
        return way.answer(conn, caller, 201, made)


def _accept(conn: Connection, caller: Caller, file: IO[bytes], name: str | None, *, skipping: bool) -> shapes.Submitted:
    batch_id = BatchId(ids.new())
    by = runs.submitter(conn, None, caller)
    rows.create(conn, batch_id, name=name, requester=by.requester, requester_id=by.requester_id)
    reader = _Reader(conn, caller, skipping=skipping)
    part: list[NewRun] = []
    total = size = 0
    for new, length in reader.read(file):
        total += 1
        if total > MOST_RUNS:
            raise InvalidInput(f"A batch may have {MOST_RUNS:,} runs. Send the others as another batch.")
        if reader.wrong and not skipping:
            continue
        part.append(new)
        size += length
        if len(part) >= _AT_ONCE or size >= _AT_ONCE_BYTES:
            rows.load(conn, batch_id, part, actor=caller.actor)
            part, size = [], 0
    if reader.wrong and not (skipping and total):
        raise RequestValidationError(reader.wrong)
    if not total:
        raise InvalidInput("There is no run in the body: send one as JSON on each line.")
    rows.load(conn, batch_id, part, actor=caller.actor)
    told = {"batch": ids.show("bat", batch_id), "runs": total, "skipped": reader.skipped}
    audit.append(conn, Event(caller.actor, "batch.submitted", body=told))
    return shapes.submitted(rows.get(conn, batch_id), reader.wrong, skipped=reader.skipped, listed=reader.listed)


class _Reader:
    """Lines → runs. What is wrong with a line is noted, and the others are read all the same: up to so many faults, or
    to the end where faulty lines are skipped.
    """

    def __init__(self, conn: Connection, caller: Caller, *, skipping: bool) -> None:
        self._conn, self._caller, self._skipping = conn, caller, skipping
        self._known = frozenset(agents.names(conn))
        self._by: dict[str | None, Submitter] = {}
        self.wrong: list[dict[str, Any]] = []
        self.skipped = self.listed = 0

    def read(self, file: IO[bytes]) -> Iterator[tuple[NewRun, int]]:
        """Each run with the length of its line."""
        number = 0
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            if number > MOST_RUNS + MOST_OTHER_LINES:
                raise InvalidInput(
                    f"A batch may have {MOST_RUNS:,} runs, and {MOST_OTHER_LINES:,} lines more that are faulty or"
                    " blank. Send the others as another batch."
                )
            if not line.strip():
                continue
            try:
                _must_be_whole(line, file)
                asked = Line.model_validate(digest.parse(line, what="The line", limit=MOST_BYTES))
                by = self._submitter(asked.requester)
                yield runs.new_run(asked, by, self._known, key=asked.key, line=number), len(line)
            except ValidationError as error:
                self._note([{"loc": (f"line {number}", *item["loc"]), "msg": item["msg"]} for item in error.errors()])
            except InvalidInput as error:
                self._note([{"loc": (f"line {number}",), "msg": str(error)}])
            if len(self.wrong) >= _MOST_ERRORS and not self._skipping:
                return

    def _note(self, wrong: list[dict[str, Any]]) -> None:
        self.skipped += 1
        if self.listed < MOST_LISTED:
            self.listed += 1
            self.wrong += wrong

    def _submitter(self, requester: str | None) -> Submitter:
        if requester not in self._by:
            self._by[requester] = runs.submitter(self._conn, requester, self._caller)
        return self._by[requester]


def _must_be_whole(line: bytes, file: IO[bytes]) -> None:
    """`InvalidInput` for a line that was not read to its end, which then is passed over."""
    if len(line) <= MOST_BYTES:
        return
    while line and not line.endswith(b"\n"):
        line = file.readline(MOST_BYTES)
    raise InvalidInput(f"The line is longer than {MOST_BYTES:,} bytes.")
