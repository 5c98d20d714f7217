"""The story of a worker that stood still in the middle of an approved call, was taken for dead, and came back."""

from __future__ import annotations

from tests.journeys.stacks import Stack


def test_what_it_finished_counts_and_even_a_rerun_does_not_repeat_it(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    hold = rough.yard / "hold-yew"
    hold.touch()
    run = program.submit("clerk", "yew")
    [request] = ana.asked(run["id"])
    ana.decide(request, "approve")
    [line] = rough.wait_for(lambda: rough.lines("yew"), what="the line")
    worker = {pid: name for name, pid in rough.pids.items()}[int(line.split()[1])]

    with rough.hanging(worker):
        [asked] = ana.asked(run["id"], within=30)
        hold.unlink()
    rough.wait_for(lambda: _stored(rough, run["id"]), what="its result")
    ana.decide(asked, "rerun")
    ended = program.ended(run["id"])

    assert asked["kind"] == "outcome"
    assert ended["output"] == "Done: yew is in the book"
    assert len(rough.lines("yew")) == 1


def _stored(stack: Stack, run_id: str) -> bool:
    """Whether the call's result is in the journal."""
    journal = "SELECT state FROM executions WHERE run_id = %s AND tool = 'append'"
    return stack.query(journal, run_id.removeprefix("run_")) == [("finished",)]
