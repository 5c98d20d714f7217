"""Many votes at once: each on its own request, under its own digest, with its own outcome. Never at tier high."""

from __future__ import annotations

import time
from collections.abc import Mapping

from banksman.errors import BanksmanError, NotAllowed
from banksman.ids import RequestId
from banksman.ledger import Connection, families, views
from banksman.states import Tier, Verdict
from banksman_gateway import decide, watched
from banksman_gateway.decide import Ballot, Outcome, Pen, Voter


def cast(
    conn: Connection, voter: Voter, ballots: Mapping[RequestId, Ballot], pen: Pen
) -> dict[RequestId, Outcome | BanksmanError]:
    """Each vote under a savepoint of its own.

    Runs are held in the order of their ids, so that two such calls never wait for each other in a ring; and all of
    them at the start when one of the votes stops its run, which takes the whole family that the run belongs to.
    """
    outcomes: dict[RequestId, Outcome | BanksmanError] = {}
    known = views.runs_and_tiers(conn, list(ballots))
    if any(ballot.stop_run or ballot.verdict is Verdict.STOP for ballot in ballots.values()):
        families.hold(conn, [families.root(conn, run_id) for run_id, _ in known.values()])

    def place(request_id: RequestId) -> tuple[int, int]:
        return (known[request_id][0].int if request_id in known else 0, request_id.int)

    for request_id in sorted(ballots, key=place):
        began = time.time()
        try:
            with conn.transaction():
                if request_id in known and known[request_id][1] is Tier.HIGH:
                    raise NotAllowed("Requests of tier high are decided one by one, in the inbox.")
                outcome = decide.vote(conn, request_id, voter, ballots[request_id], pen)
            outcomes[request_id] = outcome
            watched.voted(outcome, voter, ballots[request_id], began)
        except BanksmanError as error:
            outcomes[request_id] = error
    return outcomes
