"""The results of a batch as one stream, while it runs or afterwards: NDJSON, or CSV that no spreadsheet runs.

They are read some at a time, each part in a short transaction of its own, in which the caller is checked again. So a
slow reader of 100,000 results holds no memory, no connection and no snapshot.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from banksman import ids, vault
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ledger import results
from banksman.ledger.results import Place, Result
from banksman_gateway import batches, problems
from banksman_gateway.batches import BatchPath
from banksman_gateway.door import Door, ToRead
from banksman_gateway.intake import StrictRoute

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=StrictRoute, responses=problems.ALSO)

Form = Literal["ndjson", "csv"]
Order = Literal["line", "end"]
_TYPES: dict[Form, str] = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_AT_ONCE = 500
_CURSOR = re.compile(r"(\d{1,17})-([0-9a-f]{32})")
_COLUMNS = (
    *("line", "key", "run_id", "agent", "status", "output", "error", "metadata"),
    *("input_tokens", "output_tokens", "cost", "started_at", "finished_at", "cursor"),
)
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")


@router.get(
    "/{batch_id}/results",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {}, "text/csv": {}}}},
)
def stream_results(
    batch_id: BatchPath,
    way: ToRead,
    *,
    form: Annotated[Form | None, Query(alias="format", description="Instead of `Accept: text/csv`.")] = None,
    order: Annotated[
        Order, Query(description="`line`: every run as it stands; `end`: those that are over, as they ended.")
    ] = "line",
    after: Annotated[str | None, Query(description="The `cursor` of the last one that is known already.")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """What came of each run: its line and `key`, status, output, error, metadata and usage."""
    chosen = form or ("csv" if "text/csv" in accept.lower() else "ndjson")
    first = _part(way, batch_id, order, results.START if after is None else _place(after))
    name = f"{batch_id}.{chosen}"
    return StreamingResponse(
        _follow(way, batch_id, order, first, _csv if chosen == "csv" else _ndjson, header=after is None),
        media_type=_TYPES[chosen],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


Write = Callable[[Sequence[Result]], str]


def _follow(
    way: Door, batch_id: str, order: Order, part: Sequence[Result], write: Write, *, header: bool
) -> Iterator[str]:
    if write is _csv and header:
        yield ",".join(_COLUMNS) + "\r\n"
    while part:
        yield write(part)
        part = _part(way, batch_id, order, part[-1].place) if len(part) == _AT_ONCE else ()


def _part(way: Door, batch_id: str, order: Order, after: Place) -> Sequence[Result]:
    read = results.by_line if order == "line" else results.by_end
    with way.enter() as (conn, caller), vault.leniently():
        caller.must("runs:read")
        return read(conn, batches.must_see(conn, caller.person, batch_id), after, limit=_AT_ONCE)


def _ndjson(part: Sequence[Result]) -> str:
    return "".join(map(_line, part))


def _line(one: Result) -> str:
    """One object; what is JSON already goes in as it is."""
    rest = json.dumps(_facts(one), ensure_ascii=False)[1:]
    return f'{{"output": {one.output}, "metadata": {one.metadata}, {rest}\n'


def _facts(one: Result) -> dict[str, Json]:
    return {
        "line": one.line,
        "key": one.key,
        "run_id": ids.show("run", one.run_id),
        "agent": one.agent,
        "status": one.status.value,
        "error": one.error,
        "usage": dict(one.usage),
        "started_at": None if one.started_at is None else one.started_at.isoformat(),
        "finished_at": None if one.finished_at is None else one.finished_at.isoformat(),
        "cursor": _cursor(one.place),
    }


def _csv(part: Sequence[Result]) -> str:
    """Text as cells that a spreadsheet shows and never computes: what could begin a formula follows an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file)
    for one in part:
        said, output, metadata = _facts(one), json.loads(one.output), json.loads(one.metadata)
        usage = one.usage
        text = output if isinstance(output, str) else "" if output is None else json.dumps(output, ensure_ascii=False)
        cells = said | {name: usage.get(name) for name in ("input_tokens", "output_tokens", "cost")}
        cells |= {"output": text, "metadata": json.dumps(metadata, ensure_ascii=False) if metadata else ""}
        writer.writerow([_cell(cells[name]) for name in _COLUMNS])
    return file.getvalue()


def _cell(value: Json) -> Json:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _cursor(place: Place) -> str:
    return f"{place[0]}-{place[1].hex}"


def _place(cursor: str) -> Place:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInput("`after` is no cursor of these results.")
    return int(match[1]), UUID(hex=match[2])
