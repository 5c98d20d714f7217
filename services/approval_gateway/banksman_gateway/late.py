"""Late votes: what somebody is told whose vote comes when the request is settled, expired or cancelled."""

from __future__ import annotations

from banksman.errors import AlreadyDecided
from banksman.ledger import Connection, people, views, votes
from banksman.records import Request
from banksman.states import RequestState


def answer(conn: Connection, request: Request) -> AlreadyDecided:
    """The conflict for a vote on a request that waits for nobody any more: what became of it, when, by whom."""
    if request.state is RequestState.OPEN or request.state is RequestState.EXPIRED:
        return AlreadyDecided(
            f"Nobody decided in time: the deadline was {request.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
            {"state": RequestState.EXPIRED.value, "expired_at": request.expires_at.isoformat()},
        )
    if request.state is RequestState.CANCELLED:
        end = views.end_of(conn, request)
        return AlreadyDecided(
            f"The run was {end.what} by {end.who} on {end.at:%Y-%m-%d at %H:%M:%S} UTC, and this request with it."
            " Your vote was not counted.",
            {"state": request.state.value, "run": end.what, "by": end.who, "at": end.at.isoformat()},
        )
    cast_ = [item for item in votes.standing(conn, request.id) if item.revision == request.revision]
    names = people.named(conn, [item.person_id for item in cast_ if item.person_id is not None])
    winners = [
        {
            "person": names[item.person_id].email if item.person_id is not None else "an API key",
            "verdict": item.verdict.value,
            "at": item.created_at.isoformat() if item.created_at else None,
        }
        for item in cast_
    ]
    who = " and ".join(str(winner["person"]) for winner in winners) or "the system"
    return AlreadyDecided(
        f"This request is already {request.state.value}, by {who}.",
        {"state": request.state.value, "decided_by": winners, "revision": request.revision},
    )
