"""The inventory: every tool with its gate, and what is refused before any run is claimed."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, Self

import pytest
from pydantic import BaseModel, SecretStr
from pydantic_ai import Agent, DeferredToolRequests, RunContext, TextOutput, Tool, ToolOutput
from pydantic_ai.capabilities import (
    AbstractCapability,
    HandleDeferredToolCalls,
    Hooks,
    LocalWorkspace,
    PrefixTools,
    ProcessHistory,
    WebSearch,
)
from pydantic_ai.native_tools import CodeExecutionTool
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ExternalToolset, FunctionToolset, ToolsetTool
from pydantic_deep import create_deep_agent  # pyright: ignore[reportMissingTypeStubs]
from pydantic_deep.features.patch import PatchToolCallsCapability  # pyright: ignore[reportMissingTypeStubs]
from subagents_pydantic_ai import create_subagent_toolset

from banksman import policy, rule_file
from banksman.errors import ConfigurationError, Ungateable
from banksman.policy import Policy
from banksman.states import Tier
from banksman_worker import agents, check, inventory
from banksman_worker.agents import Loaded
from banksman_worker.deep import EFFECTS, deep_agent
from banksman_worker.scripted import Seen, scripted_model

EXAMPLES = ("banksman_plain:agents", "banksman_sysadmin:agents")
_KEEP_APPROVALS: dict[str, Any] = {
    "include_subagents": False,
    "patch_tool_calls": False,
    "stuck_loop_detection": False,
    "context_manager": False,
    "web_search": False,
    "web_fetch": False,
}


def model() -> Any:
    def done(seen: Seen) -> str:
        del seen
        return "done"

    return scripted_model(done)


def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def loaded(agent: Agent[Any, Any], **more: Any) -> Loaded:
    """As a worker would have it, listed in a module."""
    module = ModuleType("acme_listed")
    vars(module)["agents"] = {"acme": agents.Listed(agent, **more)}
    sys.modules[module.__name__] = module
    try:
        return agents.load(["acme_listed:agents"])["acme"]
    finally:
        del sys.modules[module.__name__]


def tools_of(agent: Agent[Any, Any], **more: Any) -> dict[str, inventory.Tool]:
    """Taken and not refused."""
    held = loaded(agent, **more)
    tools = asyncio.run(inventory.take(held))
    inventory.refuse(held, tools)
    return {tool.name: tool for tool in tools}


def refusal(agent: Agent[Any, Any], **more: Any) -> str:
    with pytest.raises(Ungateable) as caught:
        tools_of(agent, **more)
    return str(caught.value)


def direct(**arguments: Any) -> Agent[Any, Any]:
    """An agent of pydantic-deep itself, with the library's defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return create_deep_agent(model=model(), **arguments)


def test_every_tool_of_the_examples_has_its_gate() -> None:
    rows = {(row.agent, row.tool): row for row in check.rows(EXAMPLES)}

    assert {tool for agent, tool in rows if agent == "sysadmin"} == {*(set(EFFECTS) - {"hashline_edit"}), "execute"}
    asked = {key for key, row in rows.items() if row.verdict == "ask"}
    assert asked == {
        ("desk", "issue_refund"),
        ("sysadmin", "write_file"),
        ("sysadmin", "edit_file"),
        ("sysadmin", "execute"),
    }
    assert {rows[key].tier for key in asked} == {Tier.MEDIUM}
    assert {rows[key].rule for key in asked} == {"flagged"}
    assert rows["support", "ask_person"].verdict == "allow"
    assert rows["support", "wait_for_delivery"].verdict == "allow"


def test_the_gate_follows_the_policy() -> None:
    rules = Policy(allow_tools=("exec*",), allow_writes_below=("/workspace",))

    rows = {row.tool: row for row in check.rows(["banksman_sysadmin:agents"], rules)}

    assert (rows["execute"].verdict, rows["execute"].rule) == ("allow", "allow-tools")
    assert rows["write_file"].verdict == "ask"
    assert "Files below /workspace need nobody." in rows["write_file"].why


def test_the_gate_is_shown_under_the_rules() -> None:
    text = """
[[rule]]
name = "no shell"
tool = "execute"
then = "deny"
because = "No."

[[rule]]
name = "notes"
tool = "write_file"
when = 'path_within(args.path, "/notes")'
then = "allow"
because = "Notes are ours."
"""

    rows = {row.tool: row for row in check.rows(["banksman_sysadmin:agents"], rules=rule_file.read(text))}

    assert (rows["execute"].verdict, rows["execute"].why) == ("deny", "no shell: No.")
    assert rows["write_file"].verdict == "depends"
    assert "notes (allowed); otherwise tier medium (flagged)." in rows["write_file"].why
    assert "no rule" not in rows["read_file"].why


def test_what_an_author_declares_decides_the_gate() -> None:
    agent = Agent(
        model(),
        tools=[
            Tool(send, name="unknown"),
            Tool(send, name="harmless", metadata={"banksman": "harmless"}),
            Tool(send, name="files", metadata={"banksman": "workspace"}),
            Tool(send, name="wanted", metadata={"banksman": "harmless"}, requires_approval=True),
        ],
        toolsets=[ExternalToolset([ToolDefinition(name="elsewhere")])],
    )

    tools = tools_of(agent)

    rules = {name: (tool.judgement(Policy()).verdict, tool.judgement(Policy()).rule) for name, tool in tools.items()}
    assert rules == {
        "unknown": ("ask", "unknown-effects"),
        "harmless": ("allow", "harmless"),
        "files": ("ask", "changes-files"),
        "wanted": ("ask", "flagged"),
        "elsewhere": ("ask", "external"),
    }
    assert tools["unknown"].gate(Policy())["tier"] == "medium"
    assert tools["unknown"].schema == tools["harmless"].schema


def test_a_misspelt_effect_stops_the_start_up() -> None:
    with pytest.raises(ConfigurationError, match="'send' declares the effect 'harmles'"):
        tools_of(Agent(model(), tools=[Tool(send, metadata={"banksman": "harmles"})]))


def test_taking_the_inventory_runs_nothing_of_the_agent() -> None:
    ran: list[str] = []

    def act() -> str:
        """Act."""
        ran.append("tool")
        return ""

    def shape(text: str) -> str:
        ran.append("output")
        return text

    def talk(seen: Seen) -> str:
        ran.append("model")
        return ""

    agent = Agent(scripted_model(talk), tools=[act], output_type=TextOutput(shape))

    assert set(tools_of(agent, harmless_output=True)) == {"act"}
    assert ran == []
    assert agent.name is None


def test_a_default_deep_agent_is_refused_and_told_what_to_use() -> None:
    message = refusal(direct())

    assert "The agent 'acme' cannot be gated:" in message
    assert "the tools task, check_task" in message
    assert "PatchToolCallsCapability" in message
    assert "StuckLoopDetection" in message
    assert "ContextManagerCapability" in message
    assert "build it with banksman.deep_agent(...)" in message


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"include_subagents": True}, "the tools task, check_task"),
        ({"patch_tool_calls": True}, "(patch_tool_calls=False)"),
        ({"stuck_loop_detection": True}, "(stuck_loop_detection=False)"),
        ({"context_manager": True}, "(context_manager=False)"),
        ({"web_search": True}, "the tool web_search: it runs at the model's provider"),
        ({"include_checkpoints": True}, "(include_checkpoints=False)"),
        ({"forking": True}, "(forking=False)"),
        ({"include_teams": True}, "a subagent's calls never reach"),
    ],
)
def test_each_default_that_breaks_approval_is_refused_alone(argument: dict[str, Any], said: str) -> None:
    assert said in refusal(direct(**{**_KEEP_APPROVALS, **argument}))


def test_what_reaches_the_gate_is_asked_about_instead_of_refused() -> None:
    tools = tools_of(direct(**_KEEP_APPROVALS))

    for name in ("write_file", "start_monitor", "run_skill_script", "write_memory"):
        assert tools[name].judgement(Policy()).verdict == "ask", name


def test_our_deep_agent_is_not_refused() -> None:
    assert set(tools_of(deep_agent(model(), interrupt_on={"write_file": True}))) >= {"write_file", "execute"}


def test_a_provider_tool_is_refused_by_name_with_a_remedy() -> None:
    class Coding(AbstractCapability[Any]):
        def get_native_tools(self) -> list[CodeExecutionTool]:
            return [CodeExecutionTool()]

    message = refusal(Agent(model(), capabilities=[Coding()]))

    assert "the tool code_execution: it runs at the model's provider" in message
    assert "function tool" in message


def test_a_search_that_runs_here_is_asked_about() -> None:
    local = WebSearch[None](native=False, local=Tool(send, name="search"))

    assert tools_of(Agent(model(), capabilities=[local]))["search"].effects == "unknown"


async def _approve_all(ctx: RunContext[Any], requests: DeferredToolRequests) -> Any:
    return requests.build_results(approve_all=True)


def test_whatever_approves_in_the_process_is_refused() -> None:
    handler = HandleDeferredToolCalls[Any](handler=_approve_all)
    hooks = Hooks[Any](deferred_tool_calls=_approve_all)

    assert "the capability HandleDeferredToolCalls: it answers waiting calls" in refusal(
        Agent(model(), capabilities=[handler])
    )
    assert "the capability Hooks: it answers waiting calls" in refusal(Agent(model(), capabilities=[hooks]))
    assert tools_of(Agent(model(), tools=[send], capabilities=[Hooks[Any]()]))


def test_a_capability_is_found_inside_a_wrapper_and_behind_a_function() -> None:
    def later(ctx: RunContext[Any]) -> AbstractCapability[Any]:
        return PatchToolCallsCapability()

    wrapped = PrefixTools[Any](wrapped=PatchToolCallsCapability(), prefix="x")

    assert "PatchToolCallsCapability" in refusal(Agent(model(), capabilities=[wrapped]))
    assert "PatchToolCallsCapability" in refusal(Agent(model(), capabilities=[later]))


def test_subagents_are_found_behind_a_function_too() -> None:
    def later(ctx: RunContext[Any]) -> AbstractToolset[Any]:
        return create_subagent_toolset(subagents=[], default_model=model())

    assert "a subagent's calls never reach this agent's gate" in refusal(Agent(model(), toolsets=[later]))


def test_a_history_that_is_rewritten_and_files_kept_elsewhere_are_refused() -> None:
    history = ProcessHistory[Any](lambda messages: messages[-4:])

    assert "rewrites the history" in refusal(Agent(model(), capabilities=[history]))
    assert "use ctx.workspace in tools" in refusal(Agent(model(), capabilities=[LocalWorkspace[Any]("/srv")]))


class Refund(BaseModel):
    """An answer that is only data."""

    amount: int


def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@pytest.mark.parametrize(
    "output",
    [
        pay,
        [str, pay],
        ToolOutput(pay),
        TextOutput(send),
        partial(pay, amount=3),
        [ToolOutput(pay), DeferredToolRequests],
    ],
)
def test_an_output_function_needs_its_authors_word(output: Any) -> None:
    agent = Agent(model(), output_type=output)

    assert "the output function" in refusal(agent)
    assert tools_of(agent, harmless_output=True) == {}


@pytest.mark.parametrize(
    "output", [str, Refund, list[int], Refund | None, [Refund, ToolOutput(list[str])], dict[str, Any]]
)
def test_an_output_that_is_only_data_is_taken(output: Any) -> None:
    assert set(tools_of(Agent(model(), tools=[send], output_type=output))) == {"send"}


class Login(BaseModel):
    """What nobody could be shown."""

    password: SecretStr


def sign_in(login: Login) -> str:
    """Sign in."""
    return login.password.get_secret_value()


def test_an_argument_that_cannot_be_shown_is_refused() -> None:
    odd = {"type": "object", "properties": {"x": {"type": "number", "default": float("inf")}}}

    assert "the tool sign_in: its argument 'password' is a secret type" in refusal(Agent(model(), tools=[sign_in]))
    assert "the tool odd: its argument schema holds a number that is not finite" in refusal(
        Agent(model(), tools=[Tool.from_schema(send, "odd", "Odd.", odd)])
    )


class Server(AbstractToolset[Any]):
    """Stands where a toolset on another machine stands: it is reached, or it is not."""

    def __init__(self, *, entering: float = 0, listing: float = 0, error: str = "") -> None:
        self._entering, self._listing, self._error = entering, listing, error
        self.left = False

    @property
    def id(self) -> str:
        return "crm"

    async def __aenter__(self) -> Self:
        await asyncio.sleep(self._entering)
        return self

    async def __aexit__(self, *args: object) -> None:
        self.left = True

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        if self._error:
            raise OSError(self._error)
        await asyncio.sleep(self._listing)
        inner = FunctionToolset[Any]([send])
        return {name: replace(tool, toolset=self) for name, tool in (await inner.get_tools(ctx)).items()}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        del name, tool_args, ctx, tool
        raise AssertionError("The inventory calls no tool.")


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(entering=60), "no answer within 0.2 seconds"),
        (Server(listing=60), "no answer within 0.2 seconds"),
        (Server(error="refused"), "OSError: refused"),
    ],
)
def test_a_server_that_cannot_be_listed_is_asked_about(server: Server, why: str) -> None:
    agent = Agent(model(), tools=[pay], toolsets=[server])
    started = time.monotonic()

    tools = asyncio.run(inventory.take(loaded(agent), per_toolset=0.2))

    assert time.monotonic() - started < 10
    known, unlisted = tools
    assert known.name == "pay"
    assert unlisted.name == "Server 'crm'"
    judged = unlisted.judgement(Policy())
    assert judged.verdict == "ask"
    assert f"cannot be listed ({why})" in judged.because
    assert policy.judge(Policy(), policy.Call("acme", "any_of_its_tools", {})).verdict == "ask"


def test_a_server_that_answers_is_listed_and_left() -> None:
    server = Server()

    assert tools_of(Agent(model(), toolsets=[server]))["send"].unlisted is None
    assert server.left


def test_an_agent_that_never_starts_does_not_hang_the_worker() -> None:
    agent = Agent(model())

    @agent.instructions
    async def wait() -> str:
        await asyncio.sleep(60)
        return ""

    with pytest.raises(ConfigurationError, match=r"did not come to its first model request within 0\.2 seconds"):
        asyncio.run(inventory.take(loaded(agent), within=0.2))


def test_an_agent_that_cannot_start_says_why() -> None:
    validated = Agent(model(), output_type=str)
    validated.output_validator(lambda answer: answer)
    twice = Agent(model(), toolsets=[FunctionToolset([send], id="a"), FunctionToolset([send], id="b")])

    with pytest.raises(ConfigurationError, match="Add DeferredToolRequests to its output_type"):
        tools_of(validated)
    with pytest.raises(ConfigurationError, match=r"'acme' cannot start a run: UserError: .*'send'"):
        tools_of(twice)


def test_check_prints_the_gates_or_the_sentence_that_a_worker_would_stop_with(monkeypatch: pytest.MonkeyPatch) -> None:
    import banksman_plain

    good, bad = io.StringIO(), io.StringIO()
    assert check.main(["banksman_plain:agents"], out=good) == 0
    monkeypatch.setitem(banksman_plain.agents, "coder", direct())
    assert check.main(["banksman_plain:agents"], out=bad) == 1

    as_json = io.StringIO()
    assert check.main(["banksman_plain:agents"], out=as_json, as_json=True) == 1

    assert "The agent 'coder' cannot be gated" in json.loads(as_json.getvalue())["refused"]
    assert "desk     1        issue_refund       ask    medium  flagged: The agent's author" in good.getvalue()
    assert "The agent 'coder' cannot be gated" in bad.getvalue()
