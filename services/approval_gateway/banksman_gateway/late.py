"""Late votes: what somebody is told whose vote comes when others have decided, voted or changed what is asked.

The answer names who came first, and when: on the page, in the API and in the terminal alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from banksman import digest, ids
from banksman.digest import Json
from banksman.errors import AlreadyDecided, AlreadyVoted, Changed, InvalidInput
from banksman.ledger import Connection, decisions, lists, people, views, votes
from banksman.records import Decision, Request, Vote
from banksman.states import RequestState


def answer(conn: Connection, request: Request) -> AlreadyDecided:
    """The conflict for a vote on a request that waits for nobody any more: what became of it, when, by whom."""
    if request.state is RequestState.OPEN or request.state is RequestState.EXPIRED:
        return AlreadyDecided(
            f"Nobody decided in time: the deadline was {request.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC.",
            {"state": RequestState.EXPIRED.value, "expired_at": request.expires_at.isoformat()},
        )
    if request.state is RequestState.CANCELLED:
        end = views.end_of(conn, request)
        return AlreadyDecided(
            f"The run was {end.what} by {end.who} {_on(end.at)}, and this request with it. Your vote was not counted.",
            {"state": request.state.value, "run": end.what, "by": end.who, "at": end.at.isoformat()},
        )
    if request.state is RequestState.SUPERSEDED:
        return AlreadyDecided(
            f"Something under this call changed {_on(request.settled_at)}, so it is asked again in a new request.",
            {"state": request.state.value, "at": _iso(request.settled_at)},
        )
    winners = _winners(conn, request)
    who = " and ".join(str(winner["person"]) for winner in winners) or "somebody"
    return AlreadyDecided(
        f"This request is already {request.state.value}, by {who}, {_on(request.settled_at)}."
        " Your vote was not counted.",
        {
            "state": request.state.value,
            "decided_by": winners,
            "at": _iso(request.settled_at),
            "revision": request.revision,
        },
    )


def voted(request: Request, mine: Sequence[Vote]) -> AlreadyVoted:
    """The conflict for a second vote of one person on one revision."""
    current: dict[str, object] = {"state": request.state.value, "revision": request.revision}
    if not mine:
        return AlreadyVoted(f"You have voted on revision {request.revision} of this request already.", current)
    current |= {"verdict": mine[-1].verdict.value, "at": _iso(mine[-1].created_at)}
    if mine[-1].withdrawals:
        return AlreadyVoted(f"You have taken your vote back {len(mine)} times. Leave this to the others.", current)
    return AlreadyVoted(
        f"You have voted on revision {request.revision} of this request already: {mine[-1].verdict.value}, "
        f"{_on(mine[-1].created_at)}. You may take that back until others have decided.",
        current,
    )


def changed(conn: Connection, request: Request, seen: int) -> Changed:
    """The conflict for a vote on something else than what is asked now."""
    current: dict[str, object] = {"revision": request.revision, "digest": request.digest.hex()}
    if seen == request.revision or request.author_id is None:
        what = "digest" if seen == request.revision else "revision"
        text = f"What you were shown is no longer what is asked: the {what} differs. Read the request again."
        return Changed(text, {"changed": what, **current})
    author = people.get(conn, request.author_id)
    at = lists.revised_at(conn, request)
    return Changed(
        f"{author.email} changed the arguments {_on(at)}: what you were shown is no longer what is asked."
        f" Read revision {request.revision}.",
        {"changed": "revision", "by": author.email, "at": _iso(at), **current},
    )


def voters_of(decision: Decision) -> Sequence[dict[str, Json]]:
    """Whose votes a decision rests on, as its statement says; nobody's, where that is not one of ours."""
    try:
        said = digest.parse(decision.signed.statement, what="The decision", limit=4 * digest.MAX_BYTES)
    except InvalidInput:
        return []
    found: Json = cast("dict[str, Json]", said).get("voters") if isinstance(said, dict) else None
    return [item for item in cast("list[Json]", found) if _is_voter(item)] if isinstance(found, list) else []


def _is_voter(item: Json) -> bool:
    if not isinstance(item, dict):
        return False
    said = cast("dict[str, Json]", item)
    away: Json = said.get("instead_of")
    named = isinstance(away, list) and all(_PERSON.fullmatch(str(one)) for one in cast("list[Json]", away))
    return named and all(isinstance(said.get(name), str) for name in ("by", "vote"))


_PERSON = re.compile(r"per_[0-9a-f]{32}")


def _winners(conn: Connection, request: Request) -> Sequence[dict[str, Json]]:
    decision = decisions.get(conn, request.id)
    said = [] if decision is None else [voter["vote"] for voter in voters_of(decision)]
    counted = [item for item in votes.of_request(conn, request.id) if ids.show("vot", item.id) in said]
    named = people.named(conn, [item.person_id for item in counted if item.person_id is not None])
    return [
        {
            "person": named[item.person_id].email if item.person_id is not None else "an API key",
            "verdict": item.verdict.value,
            "at": _iso(item.created_at),
        }
        for item in counted
    ]


def _on(at: datetime | None) -> str:
    return "" if at is None else f"on {at.astimezone(UTC):%Y-%m-%d at %H:%M:%S} UTC"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
