"""What agent authors use to ask a person, to hand a task to another agent, and to wait for work done elsewhere.

All put a tool call off with pydantic-ai's own `CallDeferred`. The run parks, costs nothing while it waits, and goes on
with the answer as the tool's result. The body of the tool runs before anybody is asked and never again, so it should
do nothing but check its arguments and put the call off; a tool that does just that is declared harmless
(`metadata={"banksman": "harmless"}`), or a person would have to approve the asking as well.

    from banksman import external, question, questions

    agent = Agent(..., toolsets=[questions()])            # the model may ask a person

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def which_warehouse(order: str) -> str:
        raise question(f"Where is {order}?", choices=["Ghent", "Lille"])

    @agent.tool_plain(metadata={"banksman": "harmless"})
    def wait_for_delivery(order: str) -> str:
        raise external(order=order)                         # answered over the API, once it happened

    agent = Agent(..., toolsets=[delegates("researcher")])  # a child run, with requests of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from pydantic_ai import CallDeferred, ModelRetry
from pydantic_ai.toolsets import FunctionToolset

MAX_CHOICES = 20
_Question = Annotated[str, Field(min_length=1, max_length=4_000, description="The question, complete on its own.")]
_Task = Annotated[str, Field(min_length=1, max_length=100_000, description="The task, complete on its own.")]
_Choice = Annotated[str, Field(min_length=1, max_length=200)]
_Choices = Annotated[
    list[_Choice], Field(min_length=2, max_length=MAX_CHOICES, description="The answers to choose from, if few.")
]


def question(text: str, *, choices: Sequence[str] | None = None) -> CallDeferred:
    """Raise this in a tool to ask a person `text`; the answer becomes the tool's result."""
    return _question(text, choices)


def external(**details: JsonValue) -> CallDeferred:
    """Raise this in a tool whose result comes from elsewhere; `details` are shown with the request.

    It is answered over the API, by a key with the scope `requests:answer` or by a person.
    """
    return CallDeferred(metadata={"banksman": "external", **details})


def delegate(agent: str, task: str) -> CallDeferred:
    """Raise this in a tool to have another listed agent do a task, as a run of its own for the same requester.

    This run waits for that one. Its answer becomes the tool's result; that it failed or was cancelled is told too.
    """
    return hand_over(agent, task)


def hand_over(agent: str, task: str, **more: bool) -> CallDeferred:
    """The call that is put off for a child run; `own` says that the agent is a subagent of the one that asks."""
    if not task.strip():
        raise ModelRetry("A task needs words.")
    return CallDeferred(metadata={"banksman": "delegate", "agent": agent, "task": task, **more})


def delegates(*agents: str) -> FunctionToolset[Any]:
    """The toolset that lets an agent hand tasks to these agents, by the names under which they are listed."""
    if not agents:
        raise ValueError("delegates() names the agents that tasks may be handed to.")
    toolset = FunctionToolset[Any](id="banksman-delegates")

    def delegate_task(agent: str, task: _Task) -> str:
        """Have another agent do a task, and get its answer."""
        raise delegate(agent, task)

    delegate_task.__annotations__["agent"] = Literal[agents]
    toolset.add_function(delegate_task, metadata={"banksman": "harmless"})
    return toolset


def ask_person(question: _Question, choices: _Choices | None = None) -> str:
    """Ask a person a question and wait for the answer. Ask only what no other tool can tell."""
    try:
        asked = _question(question, choices)
    except ValueError as error:
        raise ModelRetry(str(error)) from None
    raise asked


def questions() -> FunctionToolset[Any]:
    """The toolset that gives an agent `ask_person`."""
    toolset = FunctionToolset[Any](id="banksman-questions")
    toolset.add_function(ask_person, metadata={"banksman": "harmless"})
    return toolset


def _question(text: str, choices: Sequence[str] | None) -> CallDeferred:
    if not text.strip():
        raise ValueError("A question needs words.")
    if choices is not None and not 2 <= len(set(choices)) == len(choices) <= MAX_CHOICES:
        raise ValueError(f"A question offers 2 to {MAX_CHOICES} different choices, or none.")
    options: list[JsonValue] | None = None if choices is None else [*choices]
    return CallDeferred(metadata={"banksman": "question", "question": text, "options": options})
