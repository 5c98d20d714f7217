"""The agent that is measured: one model request calls a harmless tool and a gated one, a second one ends the run.

Where `BENCH_EFFECTS` names a file, its refund takes its time and leaves its traces there (`banksman.bench.effects`).
"""

from __future__ import annotations

import asyncio
import os

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman.bench import effects

_PROMPT = "The customer of order {order} writes that the lamp arrived broken. Refund it."
_ORDER_AT = _PROMPT.split().index("{order}")
_LOG = os.environ.get(effects.LOG)


def prompt(order: str = "A-1042") -> str:
    """What a run for this order is asked."""
    return _PROMPT.format(order=order)


def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    del info
    asked = messages[0].parts[0]
    assert isinstance(asked, UserPromptPart)
    assert isinstance(asked.content, str)
    order = asked.content.split()[_ORDER_AT]
    if any(isinstance(message, ModelResponse) for message in messages):
        return ModelResponse([TextPart(f"The refund for order {order} is on its way.")])
    return ModelResponse(
        [
            TextPart("I look the order up and refund it."),
            ToolCallPart("look_up", {"order": order}, tool_call_id="call_1"),
            ToolCallPart("refund", {"order": order, "amount": "59.00"}, tool_call_id="call_2"),
        ]
    )


agent = Agent(
    FunctionModel(_answer, model_name="bench"),
    name="bench",
    instructions="You are a refund desk.",
    output_type=[str, DeferredToolRequests],
)


@agent.tool_plain(metadata={"banksman": "harmless"})
def look_up(order: str) -> str:
    """Say what was bought and paid."""
    return f"{order}: a desk lamp for 59.00 EUR"


@agent.tool_plain(requires_approval=True)
def refund(order: str, amount: str, currency: str = "EUR") -> str:
    """Pay money back to the customer of an order."""
    if _LOG:
        effects.leave(_LOG, order)
    return f"refunded {amount} {currency} for {order}"


async def _think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Take as many seconds as the prompt says, as a model does that is far away."""
    del info
    asked = messages[0].parts[0]
    assert isinstance(asked, UserPromptPart)
    assert isinstance(asked.content, str)
    await asyncio.sleep(float(asked.content))
    return ModelResponse([TextPart("That was long.")])


thinker = Agent(FunctionModel(_think, model_name="thinker"), name="thinker")

agents = {"bench": agent, "thinker": thinker}
