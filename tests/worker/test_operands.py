"""What a person approves covers the files that the call refers to, also those that the same turn would write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_ai import Agent

from banksman.records import Request
from banksman.states import RunStatus
from banksman_worker.deep import deep_agent
from banksman_worker.scripted import Call, Seen, scripted_model
from tests.worker.conftest import Site, SiteMaker


def tell(seen: Seen) -> str:
    return json.dumps([[item.tool, item.outcome, item.text] for item in seen.returns])


def writes_and_runs() -> Agent[Any, Any]:
    return deep_agent(
        model=scripted_model(
            lambda _: [
                Call("write_file", {"path": "/hello.sh", "content": "echo hello"}),
                Call("execute", {"command": "sh hello.sh"}),
            ],
            tell,
            name="scripted-writer",
        ),
        interrupt_on={"write_file": True, "execute": True},
    )


@pytest.fixture
def here(site: SiteMaker) -> Site:
    return site({"writer": writes_and_runs()})


def by_tool(requests: list[Request]) -> dict[str, Request]:
    return {request.tool: request for request in requests}


def test_the_script_that_the_turn_would_write_is_shown_with_the_command(here: Site) -> None:
    _, requests = here.waiting("writer")

    context = json.loads(by_tool(requests)["execute"].context)

    assert context["files"]["/hello.sh"]["text"] == "echo hello"
    assert context["files"]["/hello.sh"]["proposed"] is True


def test_both_approved_run_in_order_without_being_asked_again(here: Site) -> None:
    run_id, _ = here.waiting("writer")

    run = here.decide_all(run_id, "approve")

    assert run.status is RunStatus.FINISHED
    assert "hello" in json.loads(run.output)[1][2]


def test_a_command_approved_without_its_script_runs_without_it(here: Site) -> None:
    run_id, _ = here.waiting("writer")

    run = here.decide_all(run_id, {"write_file": "deny", "execute": "approve"})

    assert run.status is RunStatus.FINISHED
    assert "hello\n" not in json.loads(run.output)[1][2]


def test_a_command_whose_script_was_edited_is_asked_again(here: Site) -> None:
    run_id, requests = here.waiting("writer")
    found = by_tool(requests)
    here.vote(found["write_file"], "approve", arguments={"content": "echo goodbye"})
    here.vote(found["execute"], "approve")

    run = here.advance(run_id)

    assert run.status is RunStatus.WAITING
    [again] = here.open(run_id)
    assert again.tool == "execute"
    context = json.loads(again.context)
    assert "a file that it refers to" in context["why_again"]
    assert context["files"]["/hello.sh"]["text"] == "echo goodbye"


def test_an_edit_is_bound_to_the_file_it_was_shown_against(site: SiteMaker) -> None:
    agent = deep_agent(
        model=scripted_model(
            lambda _: Call("write_file", {"path": "/a.txt", "content": "one two"}),
            lambda _: Call("edit_file", {"path": "/a.txt", "old_string": "two", "new_string": "three"}),
            tell,
            name="scripted-editor",
        ),
        interrupt_on={"write_file": True, "edit_file": True},
    )
    here = site({"editor": agent})
    run_id, _ = here.waiting("editor")
    here.decide_all(run_id, "approve")
    [edit] = here.open(run_id)

    assert json.loads(edit.context)["files"]["/a.txt"]["text"] == "one two"
    assert here.decide_all(run_id, "approve").status is RunStatus.FINISHED
