"""The story of a PostgreSQL that goes away: nothing is accepted, nothing is lost, and all goes on when it is back."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.outsider import Outsider, Shape, problem
from tests.journeys.stacks import Stack, until


def test_nothing_is_accepted_while_it_is_away_and_all_goes_on_when_it_is_back(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    hold = rough.yard / "hold-poplar"
    hold.touch()
    busy, parked = program.submit("clerk", "poplar"), program.submit("clerk", "rowan")
    [in_a_tool], [waiting] = ana.asked(busy["id"]), ana.asked(parked["id"])
    ana.decide(in_a_tool, "approve")
    rough.wait_for(lambda: rough.lines("poplar"), what="the line")
    before = rough.query("SELECT count(*) FROM runs")

    with rough.gone("postgres"):
        until(lambda: program.http.get("/readyz").status_code == 503, what="unready")
        alive = program.http.get("/healthz")
        refused = [
            program.http.post("/v1/runs", json={"agent": "clerk", "prompt": "never"}),
            ana.vote(waiting, "approve"),
            program.http.get(f"/v1/runs/{parked['id']}"),
        ]
        # The tool returns while nothing can be written down.
        hold.unlink()

    assert alive.status_code == 200
    for answer in refused:
        assert problem(answer, 503)["type"] == "urn:banksman:problem:unavailable"
        assert answer.headers["retry-after"]
    until(lambda: program.http.get("/readyz").status_code == 200, within=30, what="ready")
    assert rough.query("SELECT count(*) FROM runs") == before
    decided = until(lambda: _once_back(ana, waiting), within=30, what="a vote")
    assert decided["state"] == "approved"
    ended = program.ended(parked["id"], within=40)
    assert ended["output"] == "Done: rowan is in the book"
    assert "poplar is in the book" in _end_of_the_busy_one(program, ana, busy)["output"]
    assert [len(rough.lines(word)) for word in ("poplar", "rowan")] == [1, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="a server's own processes are found in /proc")
def test_frozen_it_leaves_the_gateway_unready_and_alive_and_well_again_after(rough: Stack) -> None:
    program = rough.program()
    server = rough.pids["postgres"]
    frozen = [server, *map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())]

    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        answers = [httpx.get(f"{program.http.base_url}/readyz", timeout=5) for _ in range(3)]
        alive = httpx.get(f"{program.http.base_url}/healthz", timeout=5)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)

    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].headers["retry-after"]
    assert alive.status_code == 200
    until(lambda: program.http.get("/readyz").status_code == 200, within=30, what="ready")


def test_it_is_killed_between_two_votes_and_the_first_one_stands(rough: Stack) -> None:
    program, ana, ben = rough.program(), rough.reviewer(), rough.reviewer("ben@example.org")
    run = program.submit("sysadmin", "Create a backup script at /backup.sh")
    write, execute = ana.asked(run["id"], 2)
    ana.decide(write, "approve")

    killed = rough.kill("postgres")
    rough.replaced(killed)
    until(lambda: program.http.get("/readyz").status_code == 200, within=30, what="ready")

    assert until(lambda: ana.http.get(f"/v1/requests/{write['id']}").json().get("state")) == "approved"
    ben.decide(execute, "deny", reason="No.")
    ended = program.ended(run["id"], within=40)
    assert ended["output"].startswith("I've created the backup script")


def _end_of_the_busy_one(program: Outsider, ana: Outsider, run: Shape) -> Shape:
    """Whether its result was stored first, or its lost lease noticed first: it ends, and its tool ran once."""

    def settled() -> bool:
        for asked in program.requests(run["id"], state="open"):
            assert asked["kind"] == "outcome"
            ana.vote(asked, "happened", answer="poplar is in the book")
        return program.run(run["id"])["status"] == "finished"

    until(settled, within=40, what="the end")
    return program.run(run["id"])


def _once_back(ana: Outsider, waiting: dict[str, Any]) -> dict[str, Any] | None:
    answer: httpx.Response = ana.vote(waiting, "approve")
    if answer.status_code == 503:
        return None
    assert answer.status_code == 200, answer.text
    return answer.json()
