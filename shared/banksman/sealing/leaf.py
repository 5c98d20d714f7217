"""An event of the audit log as the canonical bytes (RFC 8785) that are hashed, proven and exported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from banksman import digest
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ledger.seals import Row


def entry(row: Row) -> bytes:
    """The canonical bytes of an event.

    A body that has no exact canonical form (a number that no double holds, nesting without end) counts as PostgreSQL
    prints it, under `text`: whoever may write events could stop the seal otherwise.
    """
    number, xid, at, actor, action, run, request, body = row
    event: dict[str, Json] = {
        "id": number,
        "xid": xid,
        "at": at,
        "actor": actor,
        "action": action,
        "run_id": run and f"run_{run}",
        "request_id": request and f"req_{request}",
    }
    if body == "{}":
        event["body"] = {}
        return _encode(event).encode()
    # What opens no more than this is no deeper; how deep Python itself goes depends on who calls it.
    if body.isascii() and body.count("[") + body.count("{") <= digest.MAX_DEPTH and _LONG.search(body) is None:
        try:
            event["body"] = _plain(body)
            return _encode(event).encode()
        except ValueError:
            pass
    try:
        event["body"] = digest.parse(body, limit=len(body) * 4)
        return digest.canonical(event)
    except InvalidInput:
        event.pop("body", None)
        return digest.canonical(event | {"text": body})


def _no_fraction(_: str) -> float:
    raise ValueError


# For ASCII without escapes, fractions and long integers the library's own C code writes what RFC 8785 asks for, seven
# times as fast as `digest.canonical`.
_LONG = re.compile(r"[0-9]{16}|\\u")
_plain: Callable[[str], Any] = json.JSONDecoder(parse_float=_no_fraction, parse_constant=_no_fraction).decode
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
