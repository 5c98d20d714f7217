"""What bounds a run: how long one step of it may take, and how much all of it may use."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, ModelRetry, Tool
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

from banksman.errors import ConfigurationError
from banksman.policy import Policy
from banksman.states import Kind, RunStatus
from banksman_worker import agents, faults
from banksman_worker.agents import Listed
from tests.worker.conftest import Site, SiteMaker
from tests.worker.test_segment import agent_calling


def within(here: Site, seconds: float) -> None:
    """Let no step of a run take longer than this."""
    here.worker = replace(here.worker, step_limit=timedelta(seconds=seconds), cancel_grace=timedelta(seconds=0.1))


def test_a_model_that_never_answers_is_given_up_and_asked_again(site: SiteMaker) -> None:
    answers: Iterator[float] = iter([20, 0])

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del messages, info
        await asyncio.sleep(next(answers))
        return ModelResponse([TextPart("done")])

    here = site({"slow": Agent(FunctionModel(answer))})
    within(here, 0.5)
    run_id = here.submit("slow")

    given_up = here.advance(run_id)
    assert given_up.status is RunStatus.QUEUED
    assert given_up.error == "No answer of the model or of a tool came within 0.5 seconds (BANKSMAN_STEP_SECONDS)."
    within(here, 30)
    assert here.advance(run_id).status is RunStatus.FINISHED


def test_a_call_that_never_ends_is_given_up_and_asked_about_and_never_made_again(site: SiteMaker) -> None:
    let_go, made = asyncio.Event(), list[str]()

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        if any(isinstance(message, ModelResponse) for message in messages):
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("pay", {"to": "ana"}, tool_call_id="call_1")])

    agent = Agent(FunctionModel(answer), output_type=[str, DeferredToolRequests])

    @agent.tool_plain
    async def pay(to: str) -> str:
        made.append(to)
        await let_go.wait()
        return f"paid {to}"

    del pay
    here = site({"payer": agent})
    within(here, 0.5)
    run_id, [asked] = here.waiting("payer")
    here.vote(asked, "approve")

    assert here.advance(run_id).status is RunStatus.QUEUED
    within(here, 30)
    assert here.advance(run_id).status is RunStatus.WAITING
    [doubt] = here.open(run_id)
    assert doubt.kind is Kind.OUTCOME

    here.worker.loop.call_soon_threadsafe(let_go.set)  # it ends after all, and what it returned is kept
    here.vote(doubt, "happened", answer="It was paid.")
    ended = here.advance(run_id)
    assert (ended.status, made) == (RunStatus.FINISHED, ["ana"])


def test_a_call_that_its_tool_gave_up_may_still_happen_and_is_asked_about(site: SiteMaker) -> None:
    let_go, made = threading.Event(), list[str]()

    def pay(to: str) -> str:
        """Pay, and hang."""
        made.append(to)
        let_go.wait(30)
        return f"paid {to}"

    agent = Agent(agent_calling(("pay", {"to": "ana"})).model, tools=[Tool(pay, requires_approval=True, timeout=0.2)])
    here = site({"payer": agent})
    run_id, [asked] = here.waiting("payer")
    try:
        assert asked.kind is Kind.APPROVAL
        assert here.decide_all(run_id, "approve").status is RunStatus.WAITING
        [doubt] = here.open(run_id)
    finally:
        let_go.set()

    assert doubt.kind is Kind.OUTCOME
    assert "gave up waiting" in doubt.context.decode()
    here.vote(doubt, "happened", answer="It was paid.")
    assert here.advance(run_id).status is RunStatus.FINISHED
    assert made == ["ana"]


@pytest.mark.parametrize("effects", ["idempotent", "harmless"])
def test_what_may_be_done_twice_is_tried_again_where_its_tool_gave_it_up(site: SiteMaker, effects: str) -> None:
    let_go, calls = threading.Event(), list[int]()

    def look() -> str:
        """Hang once."""
        calls.append(1)
        if len(calls) == 1:
            let_go.wait(30)
        return "seen"

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        done = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse([TextPart("done") if done == 2 else ToolCallPart("look", {})])

    tool = Tool(look, timeout=0.2, metadata={"banksman": effects})
    here = site({"looker": Agent(FunctionModel(answer), tools=[tool])}, policy=Policy(allow_tools=("look",)))
    try:
        assert here.advance(here.submit("looker")).status is RunStatus.FINISHED
    finally:
        let_go.set()
    assert len(calls) == 2


def test_what_a_server_of_tools_left_unanswered_may_have_happened() -> None:
    class McpError(Exception):
        def __init__(self, code: int) -> None:
            self.error = SimpleNamespace(code=code)

    def told(code: int) -> ModelRetry:
        try:
            raise ModelRetry("No answer.") from McpError(code)
        except ModelRetry as error:
            return error

    assert [faults.gave_up(told(code)) for code in (408, -32000, -32602)] == [True, True, False]
    assert not faults.gave_up(ModelRetry("Other arguments, please."))


def test_no_call_waits_for_a_thread_once_it_is_written_down_as_started(site: SiteMaker) -> None:
    all_here = threading.Barrier(45)

    def meet() -> str:
        """Wait for all others."""
        all_here.wait(60)
        return "met"

    agent = Agent(agent_calling(("meet", {})).model, tools=[Tool(meet, metadata={"banksman": "harmless"})])
    here = site({"meeting": agent})
    runs = [here.submit("meeting") for _ in range(45)]
    threads = [threading.Thread(target=here.advance, args=(run_id,)) for run_id in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)

    assert {here.run(run_id).status for run_id in runs} == {RunStatus.FINISHED}


def test_a_run_may_take_as_long_as_it_likes_as_long_as_its_steps_do_not(site: SiteMaker) -> None:
    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        await asyncio.sleep(1)
        done = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse([TextPart("done") if done == 4 else ToolCallPart("look", {})])

    agent = Agent(FunctionModel(answer), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def look() -> str:
        return "seen"

    del look
    here = site({"looker": agent})
    within(here, 4)
    began = time.monotonic()

    ended = here.advance(here.submit("looker"))

    assert ended.status is RunStatus.FINISHED, ended.error
    assert time.monotonic() - began > 4


def looking(turns: int) -> Agent[Any, Any]:
    """Makes an approved call in its first turn and harmless ones in the others."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        done = sum(isinstance(message, ModelResponse) for message in messages)
        if done == turns:
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("look" if done else "act", {})])

    agent = Agent(FunctionModel(answer), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def look() -> str:
        return "seen"

    @agent.tool_plain
    def act() -> str:
        return "done"

    del look, act
    return agent


def test_what_a_run_may_use_is_counted_over_all_of_its_segments(site: SiteMaker) -> None:
    limited = Listed(looking(2), usage_limits=UsageLimits(request_limit=2))
    enough = Listed(looking(2), usage_limits=UsageLimits(request_limit=3))
    here = site({"limited": limited, "enough": enough})

    def carried(agent: str) -> Any:
        run_id, _ = here.waiting(agent)
        return here.decide_all(run_id, "approve")

    ended = carried("limited")
    assert ended.status is RunStatus.FAILED
    assert ended.error == (
        "The run has used all that it may: The next request would exceed the request_limit of 2. Its author raises"
        " that (usage_limits, where it is listed)."
    )
    assert carried("enough").status is RunStatus.FINISHED


def test_more_than_the_librarys_fifty_requests_are_for_the_author_to_allow(site: SiteMaker) -> None:
    here = site({"own": looking(60), "more": Listed(looking(60), usage_limits=UsageLimits(request_limit=100))})

    def carried(agent: str) -> Any:
        run_id, _ = here.waiting(agent)
        return here.decide_all(run_id, "approve")

    assert carried("own").status is RunStatus.FAILED
    assert carried("more").status is RunStatus.FINISHED


def test_limits_that_are_none_stop_the_start_up() -> None:
    with pytest.raises(ConfigurationError, match="write UsageLimits"):
        agents.loaded("tests", "limited", Listed(looking(1), usage_limits={"request_limit": 2}))  # pyright: ignore[reportArgumentType]
