"""The agent that is measured: one model request calls a harmless tool and a gated one, a second one ends the run."""

from __future__ import annotations

from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

PROMPT = "The customer of order A-1042 writes that the lamp arrived broken. Refund it."


def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    del info
    if any(isinstance(message, ModelResponse) for message in messages):
        return ModelResponse([TextPart("The refund for order A-1042 is on its way.")])
    return ModelResponse(
        [
            TextPart("I look the order up and refund it."),
            ToolCallPart("look_up", {"order": "A-1042"}, tool_call_id="call_1"),
            ToolCallPart("refund", {"order": "A-1042", "amount": "59.00"}, tool_call_id="call_2"),
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
    return f"refunded {amount} {currency} for {order}"


agents = {"bench": agent}
