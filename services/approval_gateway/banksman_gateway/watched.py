"""Votes and submissions as spans of their runs' traces."""

from __future__ import annotations

from banksman import ids, tracing
from banksman.records import Run
from banksman.states import RequestState
from banksman_gateway.decide import Ballot, Outcome, Voter


def submitted(run: Run, began: float) -> None:
    """A run was submitted; `began` is the `time.time()` at which that began."""
    tracing.record("submission", run.id, began, at=tracing.submission(run.id), agent=run.agent)


def voted(outcome: Outcome, voter: Voter, ballot: Ballot, began: float) -> None:
    """Somebody voted; the vote that settled its request is where the call's execution points to."""
    request = outcome.request
    settled = request.state is not RequestState.OPEN
    tracing.record(
        "vote",
        request.run_id,
        began,
        at=tracing.decision(request.run_id, request.id) if settled else None,
        links=[tracing.segment(request.run_id, request.segment)],
        request=ids.show("req", request.id),
        verdict=ballot.verdict.value,
        channel=voter.channel,
        state=request.state.value,
    )
