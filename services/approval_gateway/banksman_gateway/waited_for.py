"""Whom a request waits for: who may decide it now, who of them has voted on it, and that the others hear of an edit."""

from __future__ import annotations

from collections.abc import Sequence

from banksman.ids import NoticeId, PersonId
from banksman.ledger import Connection, silence, staff, votes
from banksman.records import Request
from banksman.states import Tier
from banksman_gateway import stand_ins, voters
from banksman_gateway.stand_ins import Standing


def may_decide(conn: Connection, request: Request) -> Sequence[Standing]:
    """Who may decide this now, signed in, also for somebody who is away."""
    return [
        who
        for who in stand_ins.standing(conn, request, staff.everybody(conn), ()).values()
        if voters.hindrance(request, request.requirement, who, "session") is None
        and not (request.tier is Tier.HIGH and who.person.id == request.author_id)
    ]


def spoken(conn: Connection, request: Request) -> set[PersonId | None]:
    """Who has a vote on what is asked now, and has not taken it back."""
    cast = votes.of_request(conn, request.id)
    return {item.person_id for item in cast if item.revision == request.revision and not item.withdrawals}


def tell_revised(conn: Connection, request: Request) -> Sequence[NoticeId]:
    """A notice of a new revision to everybody who may decide it and has not voted on it: what they were told before,
    and what they said, counts no more.
    """
    said = spoken(conn, request)
    left = [who.person.id for who in may_decide(conn, request) if who.person.id not in said]
    return silence.tell(conn, request.id, "request", left)
