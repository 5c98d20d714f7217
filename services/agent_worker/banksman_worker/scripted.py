"""An offline model for demos and tests: a script of turns whose words depend on what the tools said.

Each step is a function from what the conversation holds so far (`Seen`) to the model's next turn:
text, or the tools to call. Steps read outcomes from the history, as a real model would, so a denial,
an edit or an expiry changes what the model says next. Which step is due is counted from the history
too: nothing is kept in memory, and a run may continue in any process.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from banksman.errors import ConfigurationError

_KEYS = {
    "openai": "OPENAI_API_KEY",
    "openai-chat": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
    "google-gla": "GOOGLE_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "cohere": "CO_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
}


@dataclass(frozen=True)
class Call:
    """One tool the scripted model calls."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Return:
    """What came back from one tool call."""

    tool: str
    outcome: str
    """`success`, `failed`, `denied`, `retried` or `interrupted`, as pydantic-ai records it."""
    text: str

    @property
    def denied(self) -> bool:
        return self.outcome == "denied"


@dataclass(frozen=True)
class Seen:
    """What a step may look at: the prompt, and every tool's return in order."""

    prompt: str
    returns: tuple[Return, ...]

    def last(self, tool: str) -> Return | None:
        """The newest return of `tool`."""
        return next((seen for seen in reversed(self.returns) if seen.tool == tool), None)


Turn: TypeAlias = str | Call | Sequence[Call]
Step: TypeAlias = Callable[[Seen], Turn]


class ScriptedModel(FunctionModel):
    """A model that needs no key; `resolve_model` puts a real one in its place when asked."""


def scripted_model(*steps: Step, name: str = "scripted") -> ScriptedModel:
    """A model that takes `steps` in turn and stays at the last one."""
    if not steps:
        raise ConfigurationError("A scripted model needs at least one step.")

    def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        return ModelResponse(parts=[*_parts(steps, messages)])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        del info
        for index, part in enumerate(_parts(steps, messages)):
            if isinstance(part, TextPart):
                yield part.content
            else:
                yield {
                    index: DeltaToolCall(
                        name=part.tool_name, json_args=part.args_as_json_str(), tool_call_id=part.tool_call_id
                    )
                }

    return ScriptedModel(respond, stream_function=stream, model_name=name)


def resolve_model(default: Model | str, chosen: str = "") -> Model:
    """The model a run uses: `chosen` in place of a scripted one, else the author's `default`.

    `chosen` is the setting BANKSMAN_DEMO_MODEL. A key that is missing is named here, at start-up.
    """
    if chosen and isinstance(default, ScriptedModel):
        return _named(chosen)
    return default if isinstance(default, Model) else _named(default)


def _named(name: str) -> Model:
    try:
        return infer_model(name)
    except UserError as error:
        key = _KEYS.get(name.partition(":")[0])
        if key is None or key not in str(error):
            raise ConfigurationError(f"The model {name!r} cannot be used: {error}") from error
        raise ConfigurationError(f"{key} is not set, needed for {name}") from error
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"The model {name!r} cannot be used: {error}") from error


def _parts(steps: Sequence[Step], messages: list[ModelMessage]) -> list[TextPart | ToolCallPart]:
    taken = sum(isinstance(message, ModelResponse) for message in messages)
    turn = steps[min(taken, len(steps) - 1)](_seen(messages))
    if isinstance(turn, str):
        return [TextPart(turn)]
    calls = [turn] if isinstance(turn, Call) else turn
    return [
        ToolCallPart(call.tool, call.arguments, tool_call_id=f"call_{taken}_{index}")
        for index, call in enumerate(calls)
    ]


def _seen(messages: list[ModelMessage]) -> Seen:
    prompt = ""
    returns: list[Return] = []
    for message in messages:
        if not isinstance(message, ModelRequest):
            continue
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                prompt = part.content if isinstance(part.content, str) else prompt
            elif isinstance(part, ToolReturnPart):
                returns.append(Return(part.tool_name, part.outcome, _text(part.content)))
    return Seen(prompt, tuple(returns))


def _text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, default=str)
