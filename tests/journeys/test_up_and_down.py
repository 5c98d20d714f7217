"""The story of a stack that is restarted, in part and as a whole, while runs are parked and tools at work."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx

from tests.journeys.conftest import QUICK
from tests.journeys.stacks import Stack, living, until


def test_a_gateway_that_is_killed_keeps_its_word(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    once = {"Idempotency-Key": "the-larder"}
    asked = {"agent": "clerk", "prompt": "larder"}
    first = program.http.post("/v1/runs", json=asked, headers=once)
    [request] = ana.asked(first.json()["id"])

    rough.replaced(rough.kill("gateway"))
    until(lambda: _answers(rough), within=30, what="the gateway")
    again = program.http.post("/v1/runs", json=asked, headers=once)
    ana.decide(request, "approve")
    ended = program.ended(first.json()["id"])

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert ended["output"] == "Done: larder is in the book"


def test_a_second_up_on_the_same_data_says_so_and_harms_nothing(rough: Stack) -> None:
    before = rough.facts
    run = rough.program().submit("clerk", "linden")

    second = rough.cli("up", "--port", "0")

    assert second.returncode != 0
    assert f"already up on {rough.data} (process {rough.popen.pid})" in second.stderr
    assert rough.facts == before
    assert living(before["pids"]) == before["pids"].keys()
    rough.reviewer().asked(run["id"])


def test_stopped_and_started_again_it_goes_on_where_it_was(tmp_path: Path) -> None:
    with Stack(tmp_path / "data", settings=QUICK) as stack:
        program, ana = stack.program(), stack.reviewer()
        hold = stack.yard / "hold-busy"
        hold.touch()
        parked, busy = program.submit("clerk", "parked"), program.submit("clerk", "busy")
        [request], [other] = ana.asked(parked["id"]), ana.asked(busy["id"])
        ana.decide(other, "approve")
        stack.wait_for(lambda: stack.lines("busy"), what="the line")
        facts = stack.facts
        pids = facts["pids"] | {"up": stack.popen.pid}
        everything = pids | _children_of(set(pids.values()))

        stack.popen.send_signal(signal.SIGTERM)
        until(lambda: "gateway" not in living(facts["pids"]), what="the gateway's end")
        waited_for = living(facts["pids"])
        hold.unlink()
        code = stack.popen.wait(60)

    assert code == 0
    # A worker does not walk away from a tool that has started.
    assert "worker-1" in waited_for
    assert living(everything) == set()
    assert not (tmp_path / "data" / "stack.json").exists()

    with Stack(tmp_path / "data", settings=QUICK) as stack:
        assert {**stack.facts, "pids": {}} == {**facts, "pids": {}}
        program, ana = stack.program(), stack.reviewer()
        assert ana.request(request["id"]) == request
        ana.decide(request, "approve")
        ended = [program.ended(run["id"])["output"] for run in (parked, busy)]
        assert ended == ["Done: parked is in the book", "Done: busy is in the book"]
        assert [len(stack.lines(word)) for word in ("parked", "busy")] == [1, 1]


def _answers(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _children_of(pids: set[int]) -> dict[str, int]:
    """Every process below these, by name and number."""
    found: dict[str, int] = {}
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    below = set(pids)
    while more := {pid for pid, parent in rows if parent in below} - below:
        below |= more
        found |= {str(pid): pid for pid in more}
    return found
