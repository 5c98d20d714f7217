"""The one capability given to every run: it puts the gate before each tool, the journal around each call, and saves
the conversation before each tool phase, and the workspace before each model request.

Users' agents stay as they are. pydantic-ai takes capabilities per run, so a cached agent serves all runs at once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.agent import CallToolsNode
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
from pydantic_ai.usage import RunUsage

from banksman import ids, metrics, tracing
from banksman_worker import conversation
from banksman_worker.gate import Gate
from banksman_worker.journal import Journal

Save = Callable[[Sequence[ModelMessage], RunUsage], Awaitable[None]]
Begins = Callable[[], None]
"""Told of each step as it begins."""


@dataclass
class Leash(AbstractCapability[Any]):
    """Holds one segment's run to what people decided."""

    gate: Gate
    journal: Journal
    save: Save
    begins: Begins
    unsaved: Callable[[], bool]
    """Whether the workspace holds what no snapshot has."""
    resuming: bool = False
    """The results that the run waited for are still to be used: nothing is saved before they are."""
    asked_at: float = 0.0
    """When the model was asked last, by the performance counter."""

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return JournaledToolset(toolset, self.journal)

    async def prepare_tools(self, ctx: RunContext[Any], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
        return self.gate.prepare(tool_defs)

    async def before_tool_validate(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: str | dict[str, Any]
    ) -> str | dict[str, Any]:
        self.gate.read_strictly(tool_def.name, args)
        return args

    async def before_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any]
    ) -> dict[str, Any]:
        return await self.gate.pass_or_ask(ctx, call, tool_def, args)

    async def on_tool_validate_error(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        error: ValidationError | ModelRetry,
    ) -> dict[str, Any]:
        # Edited arguments that the tool refuses go back to people, not to the model: the gate asks again.
        if isinstance(args, dict) and self.gate.refuse_edit(ctx, call, tool_def, error):
            return args
        raise error

    async def before_node_run(self, ctx: RunContext[Any], *, node: Any) -> Any:
        self.begins()
        # A response without calls is an answer: it is stored with the end of the run, which comes at once.
        tools_are_next = issubclass(type(node), CallToolsNode) and bool(node.model_response.tool_calls)
        if tools_are_next and not self.resuming:
            await self.save(ctx.messages, ctx.usage)
        return node

    async def before_model_request(self, ctx: RunContext[Any], request_context: Any) -> Any:
        self.resuming = False
        # What the calls returned is in the journal, and is stored with the next response; what they left in the
        # workspace is nowhere else. A conversation without any response is the prompt alone, which the run's row has.
        if any(isinstance(message, ModelResponse) for message in ctx.messages) and self.unsaved():
            await self.save(ctx.messages, ctx.usage)
        self.asked_at = time.perf_counter()
        return request_context

    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: Any, response: ModelResponse
    ) -> ModelResponse:
        metrics.answered(self.gate.claim.agent, time.perf_counter() - self.asked_at)
        return response


@dataclass
class JournaledToolset(WrapperToolset[Any]):
    """The agent's whole toolset, each call by way of the journal."""

    journal: Journal

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        tools = await self.wrapped.get_tools(ctx)
        self.journal.gate.tools = tools
        return tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        async def run() -> Any:
            try:
                with metrics.tool(self.journal.gate.claim.agent, name), self._traced(name, ctx):
                    return await self.wrapped.call_tool(name, tool_args, ctx, tool)
            except (SystemExit, KeyboardInterrupt) as error:
                # Let through, it would end the event loop with every run on it.
                raise RuntimeError(f"The tool {name} tried to end the process ({error!r}).") from error

        return await self.journal.call(ctx, name, tool_args, run)

    def _traced(self, name: str, ctx: RunContext[Any]) -> AbstractContextManager[object]:
        """The call's own span, which points at the vote that let it through."""
        gate, call = self.journal.gate, ctx.tool_call_id or ""
        cleared = gate.cleared.get((conversation.step_of(ctx.messages), call))
        request = None if cleared is None else cleared.request_id
        run_id = gate.claim.run_id
        return tracing.span(
            f"call {name}",
            run_id,
            links=[] if request is None else [tracing.decision(run_id, request)],
            tool=name,
            call=call,
            request=None if request is None else ids.show("req", request),
        )
