"""The list of runs, and the line that says what a request is about. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from fastapi import APIRouter, Response

from banksman import blocks, digest, ids, letters, masks, vault
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ids import RunId
from banksman.ledger import lists
from banksman.ledger.inbox import Item
from banksman.states import RunStatus
from banksman_gateway import auth, door, html, sessions
from banksman_gateway.parts import Here
from banksman_gateway.sessions import SignedIn

MOST = 100
"""How many lines a list shows; past that it says so."""

_GIST = 140

router = APIRouter(include_in_schema=False)


@router.get("/runs")
def show_runs(here: Here, session: SignedIn, before: str = "", status: str = "", batch: str = "") -> Response:
    """Runs, newest first; of one batch, if one is named."""
    wanted = _status(status)
    with door.transaction(here) as conn, vault.leniently():
        found = lists.of_runs(
            conn,
            status=wanted,
            batch_id=ids.read("bat", batch) if batch else None,
            requester_id=auth.own_only(session.person),
            before=RunId(ids.read("run", before)) if before else None,
            limit=MOST + 1,
        )
    return html.page(
        "runs.html",
        **sessions.signed_in(here, session),
        runs=found[:MOST],
        older=ids.show("run", found[MOST - 1].id) if len(found) > MOST else None,
        statuses=list(RunStatus),
        status=wanted,
        batch=batch,
    )


def gist(item: Item) -> str:
    """One line of what a request is about, said to be cut where it is cut."""
    try:
        action = digest.parse(item.action, limit=4 * digest.MAX_BYTES)
    except InvalidInput:
        return ""
    arguments = cast("Mapping[str, Json]", masks.of(action).value(action.get("arguments") or {}))
    parts = [f"{letters.line(name)}: {_short(value)}" for name, value in sorted(arguments.items(), key=_weight)]
    text = ", ".join(parts)
    return text if len(text) <= _GIST else text[:_GIST].rpartition(" ")[0] + " … (cut; open it to read all)"


def _weight(item: tuple[str, Json]) -> tuple[bool, str]:
    """What fits on a line first: a path says more than the size of a file."""
    return _is_long(item[1]), item[0]


def _is_long(value: Json) -> bool:
    return isinstance(value, str) and ("\n" in value or len(value) > 80)


def _short(value: Json) -> str:
    if _is_long(value):
        return blocks.whole("text", "", value).summary.partition(", ends")[0]
    return letters.line(json.dumps(value, ensure_ascii=False))


def _status(text: str) -> RunStatus | None:
    try:
        return RunStatus(text) if text else None
    except ValueError:
        raise InvalidInput(f"{text[:20]!r} is not a status of runs.") from None
