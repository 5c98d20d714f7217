"""What happened to one request, provable away from the database: its events, each with its path to one signed head.

Whoever has the sealer's public key and this one JSON text can check it (RFC 9162, section 2.1.3.2), with no server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from banksman import digest, ids
from banksman.digest import Json
from banksman.errors import InvalidInput, NotFound, NotGenuine
from banksman.ids import RequestId
from banksman.ledger import Connection, seals
from banksman.sealing import heads, leaf, tree
from banksman.sealing.heads import Head
from banksman.sealing.store import Stored
from banksman.signing import Verifier


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows."""

    request: str
    head: Head
    events: int
    unsealed: int


def prove(conn: Connection, request_id: RequestId) -> dict[str, Json]:
    """The proof for a request's sealed events, by the newest head; those that wait for the seal are only counted."""
    signed = seals.newest_head(conn)
    if signed is None:
        raise NotFound("Nothing of the audit log has been sealed yet.")
    head = heads.read(signed)
    found = seals.of_request(conn, request_id)
    if not found:
        raise NotFound(f"The audit log knows no request {ids.show('req', request_id)}.")
    hash_of = Stored(conn).hash_of
    proven: list[dict[str, Json]] = []
    for position, row in found:
        if position is None or position >= head.size:
            continue
        path = tree.inclusion(position, head.size, hash_of)
        event = json.loads(leaf.entry(row))
        proven.append({"event": event, "position": position, "path": [step.hex() for step in path]})
    return {
        "request_id": ids.show("req", request_id),
        "head": heads.to_json(signed),
        "events": proven,
        "unsealed": len(found) - len(proven),
    }


def check(value: Any, verifier: Verifier) -> Proven:
    """What the proof shows, once all of it holds; `NotGenuine` says what does not.

    It shows that these events are in the log, not that the log has no more of the request.
    """
    try:
        proof = cast("dict[str, Any]", value)
        request, items, unsealed = str(proof["request_id"]), list(proof["events"]), int(proof["unsealed"])
        signed = heads.from_json(proof["head"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidInput("This is no proof as `banksman audit prove` writes it.") from None
    ids.read("req", request)
    head = heads.verify(verifier, signed)
    if not items:
        raise NotGenuine(f"This proof has no event of {request}: it shows nothing.")
    seen: set[int] = set()
    for item in items:
        try:
            event, position = item["event"], int(item["position"])
            path = [bytes.fromhex(step) for step in item["path"]]
            number, of = int(event["id"]), str(event["request_id"])
            entry = digest.canonical(event)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise InvalidInput("An event of this proof is not as `banksman audit prove` writes it.") from None
        if of != request:
            raise NotGenuine(f"Event {number} is of {of}, not of {request}.")
        if not tree.includes(tree.leaf_hash(entry), position, head.size, path, head.root):
            raise NotGenuine(f"Event {number} is not the one at position {position} under head {head.number}.")
        if position in seen:
            raise NotGenuine(f"Event {number} stands in this proof more than once.")
        seen.add(position)
    return Proven(request, head, len(items), unsealed)
