"""One run is one trace over three processes, however long it was parked, and the trace tells nothing of its content."""

from __future__ import annotations

import pytest

from tests.journeys.receiver import Receiver, Span
from tests.journeys.stacks import Stack, until

WORD = "xylophone"


@pytest.fixture
def trace(calm: Stack, traces: Receiver) -> list[Span]:
    """The spans of a run that was submitted, told about, approved and finished."""
    program, ana = calm.program(), calm.reviewer()
    run = program.submit("clerk", WORD)
    [request] = ana.asked(run["id"])
    until(lambda: calm.mail.about("append", to="ana@example.org"), what="the mail")
    ana.decide(request, "approve")
    program.ended(run["id"])

    def whole() -> list[Span] | None:
        found = traces.of_run(run["id"])
        names = {span.name for span in found}
        return found if {"submission", "vote", "notice", "call append"} <= names and _segments(found)[1:] else None

    return until(whole, what=f"the trace of {run['id']}, {[span.name for span in traces.of_run(run['id'])]}")


def _segments(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.name == "segment clerk"]


def one(spans: list[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name == name]
    return found


def test_submission_segments_notice_vote_and_call_of_one_run_are_one_trace(trace: list[Span]) -> None:
    submission, vote, call = one(trace, "submission"), one(trace, "vote"), one(trace, "call append")
    first, second = _segments(trace)
    below = {span.id: span.parent for span in trace}

    assert {span.service for span in trace} == {"banksman-gateway", "banksman-worker", "banksman-notifier"}
    assert submission.parent == ""
    notices = [span for span in trace if span.name == "notice"]
    assert {span.parent for span in (vote, first, second, *notices)} == {submission.id}
    assert vote.attributes["banksman.verdict"] == "approve"
    assert (first.trace, first.id) in second.links
    assert (first.trace, first.id) in vote.links
    assert (vote.trace, vote.id) in call.links
    above = call.parent
    while above in below and above != second.id:
        above = below[above]
    assert above == second.id


def test_the_agent_librarys_own_spans_stand_in_it(trace: list[Span]) -> None:
    segments = {span.id for span in _segments(trace)}

    assert any(span.name.startswith("chat ") for span in trace)
    assert any(span.parent in segments and not span.name.startswith(("segment", "call")) for span in trace)


def test_no_prompt_argument_or_result_is_in_what_was_traced(trace: list[Span], traces: Receiver) -> None:
    assert trace
    assert not [body for body in traces.bodies if WORD.encode() in body]
