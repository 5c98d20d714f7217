"""The story of two workers: one parks a run and is killed, the other carries it on where it stood."""

from __future__ import annotations

from typing import Any

from tests.journeys.outsider import Shape
from tests.journeys.stacks import Stack


def test_the_second_worker_resumes_what_the_first_one_parked(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    run = program.submit("planner", "the oak table")
    [request] = ana.asked(run["id"])
    workers = {pid: name for name, pid in rough.pids.items() if name.startswith("worker")}
    first = int(_returned(program.http.get(f"/v1/runs/{run['id']}/messages").json(), "whoami"))

    killed = rough.kill(workers.pop(first))
    ana.decide(request, "approve")
    ended = program.ended(run["id"])

    [(second, _)] = workers.items()
    assert f"sign_off: signed for the oak table in process {second}" in ended["output"]
    # What it reads now, it wrote in the other process.
    assert f"whoami: {first}" in ended["output"]
    assert "The plan of the oak table" in ended["output"].partition("read_file: ")[2]
    todos = ended["output"].partition("read_todos: ")[2]
    assert "Measure" in todos
    assert "Cut" in todos
    assert program.files(run["id"]) == {"/workspace/plan.txt": "The plan of the oak table\n"}
    rough.replaced(killed)


def test_workers_killed_while_a_run_is_parked_change_nothing(rough: Stack) -> None:
    program, ana = rough.program(), rough.reviewer()
    run = program.submit("planner", "the pine bench")
    [request] = ana.asked(run["id"])
    before = program.run(run["id"])
    rows = _rows_of(rough, run)

    rough.replaced(rough.kill("worker-1", "worker-2"))

    assert program.run(run["id"]) == before
    assert ana.request(request["id"]) | {"audit_head": None} == request | {"audit_head": None}
    assert _rows_of(rough, run) == rows
    ana.decide(request, "approve")
    ended = program.ended(run["id"], within=30)
    assert "signed for the pine bench" in ended["output"]


def _rows_of(stack: Stack, run: Shape) -> list[tuple[Any, ...]]:
    """How often the run was claimed, and what was kept of it."""
    return stack.query(
        """
        SELECT fence, segment, (SELECT count(*) FROM snapshots WHERE run_id = runs.id)
        FROM runs
        WHERE id = %s
        """,
        run["id"].removeprefix("run_"),
    )


def _returned(messages: Any, tool: str) -> str:
    """What a tool gave back, by the conversation."""
    parts: list[dict[str, Any]] = [part for item in messages["items"] for part in item["parts"]]
    returns = [part for part in parts if part["part_kind"] == "tool-return"]
    [found] = [part["content"] for part in returns if part["tool_name"] == tool]
    return found
