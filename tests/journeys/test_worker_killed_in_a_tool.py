"""The story of a worker that dies in the middle of an approved call: nobody knows whether it happened, so a person
says, and it never happens twice by itself.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.journeys.outsider import Shape, problem
from tests.journeys.stacks import Stack


def test_what_happened_is_told_and_not_repeated(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    run, asked = _died_in_append(rough, "birch")

    decided = ana.decide(asked, "happened", answer="The line is in the book; I looked.")
    ended = program.ended(run["id"])

    assert (asked["kind"], asked["tool"], asked["arguments"]) == ("outcome", "append", {"word": "birch"})
    assert decided["state"] == "answered"
    assert "The line is in the book; I looked." in ended["output"]
    assert len(rough.lines("birch")) == 1
    # What had finished before is not repeated either.
    assert len(rough.lines("birch", of="notes")) == 1


def test_a_rerun_runs_once_for_each_word_of_a_person(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    run, asked = _died_in_append(rough, "cedar")

    wrong = problem(ana.vote(asked, "approve"), 422)
    _hold(rough, "cedar")
    ana.decide(asked, "rerun")
    again = _killed_in_append(rough, run, "cedar", lines=2)
    ana.decide(again, "rerun")
    ended = program.ended(run["id"])

    assert "happened, rerun, stop" in wrong["detail"]
    assert again["id"] != asked["id"]
    assert again["kind"] == "outcome"
    assert ended["output"] == "Done: cedar is in the book"
    assert len(rough.lines("cedar")) == 3
    assert len(rough.lines("cedar", of="notes")) == 1


def test_stop_ends_the_run(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    run, asked = _died_in_append(rough, "fir")

    ana.decide(asked, "stop", reason="Let it be.")
    ended = program.ended(run["id"], "cancelled")

    assert ended["output"] is None
    assert len(rough.lines("fir")) == 1


def test_a_call_that_may_run_twice_is_run_again_without_asking(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    hold = _hold(rough, "hazel")
    run = program.submit("stamper", "hazel")
    [request] = ana.asked(run["id"])
    ana.decide(request, "approve")
    rough.wait_for(lambda: rough.lines("hazel", of="stamps"), what="the stamp")

    killed = rough.kill(_worker_of(rough, "hazel", of="stamps"))
    hold.unlink()
    ended = program.ended(run["id"], within=30)

    assert ended["output"] == "Done: hazel is stamped"
    assert len(rough.lines("hazel", of="stamps")) == 2
    assert len(program.requests(run["id"])) == 1
    rough.replaced(killed)


def test_a_command_does_not_outlive_its_worker(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    command = f"sleep {1_000_000 + os.getpid()}"
    run = program.submit("runner", command)
    [request] = ana.asked(run["id"])
    ana.decide(request, "approve")
    rough.wait_for(lambda: _running(command), what="the command")

    # Which of the two runs it does not show from outside.
    killed = rough.kill("worker-1", "worker-2")

    rough.wait_for(lambda: not _running(command), what="the command's end")
    rough.replaced(killed)
    [asked] = ana.asked(run["id"], within=30)
    assert asked["kind"] == "outcome"
    ana.decide(asked, "stop")
    program.ended(run["id"], "cancelled")


def _running(command: str) -> list[str]:
    """The processes that were started as this command."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.endswith(command)]


def _died_in_append(stack: Stack, word: str) -> tuple[Shape, Shape]:
    """A run whose approved call wrote its line and never came back, and the request about it."""
    program, ana = stack.program(), stack.reviewer()
    _hold(stack, word)
    run = program.submit("clerk", word)
    [request] = ana.asked(run["id"])
    ana.decide(request, "approve")
    return run, _killed_in_append(stack, run, word, lines=1)


def _killed_in_append(stack: Stack, run: Shape, word: str, *, lines: int) -> Shape:
    """The worker that holds the call is killed; what the run waits for then."""
    stack.wait_for(lambda: len(stack.lines(word)) == lines, what=f"line {lines} of {word}")
    killed = stack.kill(_worker_of(stack, word))
    (stack.yard / f"hold-{word}").unlink()
    [asked] = stack.reviewer().asked(run["id"], within=30)
    stack.replaced(killed)
    return asked


def _worker_of(stack: Stack, word: str, *, of: str = "lines") -> str:
    """Which process wrote last."""
    pid = int(stack.lines(word, of=of)[-1].split()[1])
    return {number: name for name, number in stack.pids.items()}[pid]


def _hold(stack: Stack, word: str) -> Path:
    hold = stack.yard / f"hold-{word}"
    hold.touch()
    return hold
