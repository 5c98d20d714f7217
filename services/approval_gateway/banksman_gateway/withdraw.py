"""Withdrawing: a person takes their vote back, as long as nobody has decided; afterwards they may vote again.

The vote's row stays, for ever, and a second row says that it was taken back. That row bears the gateway's mark like the
vote, so that whoever can only write to the database takes nobody's vote away. Everything happens behind the run's row,
where `decide` counts: a vote is counted either before it is taken back, or never.
"""

from __future__ import annotations

from banksman import ids
from banksman.errors import Conflict
from banksman.ids import RequestId
from banksman.ledger import Connection, audit, requests, votes, withdrawals
from banksman.records import Event, Person, Request
from banksman.states import RequestState
from banksman_gateway import decide, late
from banksman_gateway.decide import Pen


def withdraw(conn: Connection, request_id: RequestId, person: Person, pen: Pen) -> Request:
    """A person's vote on what is asked now → taken back; `Conflict` where they have none."""
    request = requests.hold(conn, request_id)
    if request.state is not RequestState.OPEN or request.overdue:
        raise late.answer(conn, request)
    mine = [
        item
        for item in votes.of_request(conn, request.id)
        if item.person_id == person.id
        and item.revision == request.revision
        and decide.is_genuine(item, pen.marks)
        and not decide.is_withdrawn(item, pen.marks)
    ]
    if not mine:
        raise Conflict(
            f"You have no vote on revision {request.revision} of this request to take back.",
            {"state": request.state.value, "revision": request.revision},
        )
    for item in mine:
        if not withdrawals.add(conn, request.id, item.id, pen.marks.mark(item.id, decide.withdrawing(item))):
            raise late.answer(conn, requests.get(conn, request.id))
        told = {"vote": ids.show("vot", item.id), "verdict": item.verdict.value, "revision": item.revision}
        audit.append(conn, Event(ids.show("per", person.id), "vote.withdrawn", request.run_id, request.id, told))
    return request
