"""Deep agents that are safe to park: what they refuse, what they mark, and whose files they touch."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai import Agent, CallDeferred, DeferredToolRequests, RunContext, Tool
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ToolCallPart
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import ToolApproved, ToolDefinition, ToolDenied
from pydantic_ai.toolsets import FunctionToolset
from pydantic_deep import DeepAgentDeps  # pyright: ignore[reportMissingTypeStubs]

from banksman.errors import ConfigurationError
from banksman_plain import agents as plain_agents
from banksman_sysadmin import PROMPT
from banksman_sysadmin import agents as sysadmin_agents
from banksman_worker import deep
from banksman_worker.deep import deep_agent, deps_for, keep
from banksman_worker.scripted import Call, ScriptedModel, Seen, resolve_model, scripted_model
from banksman_worker.workspace import Workspace

Verdict = ToolApproved | ToolDenied


def send_email(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def tell_all(seen: Seen) -> str:
    return json.dumps([[back.tool, back.outcome, back.text] for back in seen.returns])


async def tools_of(agent: Agent[Any, Any]) -> dict[str, ToolDefinition]:
    """The tools that a model would be offered, as the run's capabilities leave them."""
    model = TestModel(call_tools=[])
    workspace = Workspace("run_tools")
    await agent.run("x", model=model, workspace=workspace, deps=deps_for(workspace))
    assert model.last_model_request_parameters is not None
    return {tool.name: tool for tool in model.last_model_request_parameters.function_tools}


async def segment(
    agent: Agent[Any, Any],
    workspace: Workspace,
    *,
    prompt: str | None = None,
    history: bytes = b"[]",
    results: Any = None,
) -> tuple[Any, bytes]:
    """One segment as the worker runs it: everything but the workspace comes from stored bytes."""
    deps = deps_for(workspace)
    result = await agent.run(
        prompt,
        message_history=ModelMessagesTypeAdapter.validate_json(history) or None,
        deferred_tool_results=results,
        workspace=workspace,
        deps=deps,
    )
    keep(deps, workspace)
    return result.output, ModelMessagesTypeAdapter.dump_json(result.all_messages())


async def carry(
    agent: Agent[Any, Any],
    prompt: str,
    verdicts: Mapping[str, Verdict],
    answers: Mapping[str, Any] | None = None,
    *,
    workspace: Workspace | None = None,
) -> tuple[str, Workspace]:
    """Run to the end, deciding by tool name, with a restored workspace for every segment."""
    workspace = workspace or Workspace("run_1")
    output, history = await segment(agent, workspace, prompt=prompt)
    while isinstance(output, DeferredToolRequests):
        results = output.build_results(
            approvals={c.tool_call_id: verdicts[c.tool_name] for c in output.approvals},
            calls={c.tool_call_id: (answers or {})[c.tool_name] for c in output.calls},
        )
        workspace = Workspace.restore(
            workspace.run_id,
            workspace.manifest(),
            workspace.changed_blobs(()),
            json.loads(json.dumps(workspace.state())),
        )
        output, history = await segment(agent, workspace, history=history, results=results)
    return output, workspace


def test_every_tool_of_the_lean_agent_is_classified() -> None:
    lean = asyncio.run(tools_of(deep_agent(scripted_model(tell_all))))
    hashed = asyncio.run(tools_of(deep_agent(scripted_model(tell_all), edit_format="hashline")))

    names = set(lean) | set(hashed)

    assert names == set(deep.EFFECTS) | {"execute"}
    assert "edit_file" in lean
    assert "hashline_edit" not in lean
    assert {*deep.HARMLESS, *deep.WORKSPACE_TOOLS} == set(deep.EFFECTS)
    for tools in (lean, hashed):
        for name, tool in tools.items():
            assert deep.declared_effect(tool) == deep.EFFECTS.get(name)


def test_a_tool_of_the_same_name_does_not_inherit_a_built_ins_effect() -> None:
    def grep(pattern: str) -> str:
        """Search the production logs."""
        return pattern

    agent = deep_agent(
        scripted_model(tell_all),
        include_filesystem=False,
        toolsets=[FunctionToolset[DeepAgentDeps](tools=[grep], id="mine")],
    )

    assert deep.declared_effect(asyncio.run(tools_of(agent))["grep"]) is None


def test_an_unknown_effect_is_refused_by_name() -> None:
    tool = ToolDefinition(name="pay", metadata={"banksman": "harmles"})

    with pytest.raises(ConfigurationError, match="'pay' declares the effect 'harmles'"):
        deep.declared_effect(tool)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("include_subagents", True),
        ("include_builtin_subagents", True),
        ("include_plan", True),
        ("include_teams", True),
        ("forking", True),
        ("web_search", True),
        ("web_fetch", True),
        ("patch_tool_calls", True),
        ("stuck_loop_detection", True),
        ("include_monitoring", True),
        ("include_checkpoints", True),
        ("context_manager", True),
        ("include_history_archive", True),
        ("cost_budget_usd", 1.0),
        ("cost_tracking", True),
        ("instrument", True),
        ("workspace", object()),
    ],
)
def test_an_argument_that_would_break_approval_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^deep_agent cannot take {name}: \w.+\.$"):
        deep_agent(scripted_model(tell_all), **{name: value})


def test_an_argument_that_only_confirms_a_safe_default_is_fine() -> None:
    deep_agent(scripted_model(tell_all), web_search=False, subagents=None, workspace=None)


def test_interrupt_on_marks_any_tool_and_only_the_tools_it_names() -> None:
    agent = deep_agent(
        scripted_model(tell_all),
        tools=[send_email, Tool(send_email, name="send_letter")],
        toolsets=[FunctionToolset[DeepAgentDeps](tools=[Tool(send_email, name="fax")], id="mine")],
        interrupt_on={"edit_file": True, "send_email": True, "fax": True, "read_file": False},
    )

    tools = asyncio.run(tools_of(agent))

    assert deep.flagged_tools(agent) == {"edit_file", "send_email", "fax"}
    assert {name for name, tool in tools.items() if tool.kind == "unapproved"} == {"edit_file", "send_email", "fax"}
    assert deep.flagged_tools(Agent(TestModel())) == frozenset()


def test_a_gate_given_to_the_run_sees_the_marks() -> None:
    class Gate(AbstractCapability[Any]):
        def __init__(self) -> None:
            self.seen: dict[str, str] = {}

        def get_ordering(self) -> CapabilityOrdering:
            return CapabilityOrdering(position="innermost")

        async def prepare_tools(self, ctx: RunContext[Any], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
            del ctx
            self.seen.update({tool.name: tool.kind for tool in tool_defs})
            return [replace(tool, kind="function") for tool in tool_defs]

    agent = deep_agent(
        scripted_model(lambda seen: Call("write_file", {"path": "/a", "content": "x"}), tell_all),
        interrupt_on={"write_file": True},
    )
    gate, workspace = Gate(), Workspace("run_1")

    result = asyncio.run(agent.run("x", workspace=workspace, deps=deps_for(workspace), capabilities=[gate]))

    assert gate.seen["write_file"] == "unapproved"
    assert gate.seen["edit_file"] == "function"
    assert isinstance(result.output, str)
    assert dict(workspace.files()) == {"/a": b"x"}


def test_a_run_without_its_workspace_fails_instead_of_going_on() -> None:
    agent = deep_agent(scripted_model(lambda seen: Call("ls"), tell_all))

    with pytest.raises(ConfigurationError, match="was run without one"):
        asyncio.run(agent.run("x", deps=DeepAgentDeps()))


def test_runs_of_one_agent_at_the_same_time_see_only_their_own_files_and_todos() -> None:
    def first(seen: Seen) -> list[Call]:
        todo = {"content": seen.prompt, "status": "pending", "active_form": seen.prompt}
        return [
            Call("write_todos", {"todos": [todo]}),
            Call("write_file", {"path": "/shared.txt", "content": f"mine is {seen.prompt}"}),
            Call("execute", {"command": f"sleep 0.05; cat shared.txt; echo > {seen.prompt}"}),
        ]

    def look(seen: Seen) -> list[Call]:
        del seen
        return [
            Call("glob", {"pattern": "**/*"}),
            Call("grep", {"pattern": "mine is", "output_mode": "content"}),
            Call("read_todos"),
            Call("edit_file", {"path": "/shared.txt", "old_string": "mine", "new_string": "ours"}),
        ]

    agent = deep_agent(scripted_model(first, look, tell_all), interrupt_on={"execute": True, "edit_file": True})
    yes: dict[str, Verdict] = {"execute": ToolApproved(), "edit_file": ToolApproved()}

    async def scenario() -> list[tuple[str, Workspace]]:
        return await asyncio.gather(*(carry(agent, f"job{n}", yes, workspace=Workspace(f"run_{n}")) for n in range(20)))

    for n, (told, workspace) in enumerate(asyncio.run(scenario())):
        returns = {tool: text for tool, _, text in json.loads(told)}
        assert returns["execute"].startswith(f"mine is job{n}\n")
        assert f"/job{n}" in returns["glob"]
        assert "Found 2 file(s)" in returns["glob"]
        assert f"/shared.txt:1: mine is job{n}" in returns["grep"]
        assert f"job{n}" in returns["read_todos"]
        assert sorted(workspace.manifest()) == [f"/job{n}", "/shared.txt"]
        assert workspace.read("/shared.txt") == f"ours is job{n}".encode()
        assert [todo.content for todo in deps_for(workspace).todos] == [f"job{n}"]


def test_searching_never_reads_the_workers_own_disk() -> None:
    agent = deep_agent(
        scripted_model(
            lambda seen: [
                Call("grep", {"pattern": "root", "path": "/etc", "output_mode": "content"}),
                Call("glob", {"pattern": "*", "path": "/etc"}),
                Call("read_file", {"path": "/etc/passwd"}),
                Call("ls", {"path": "/../../etc"}),
            ],
            tell_all,
        )
    )

    told, _ = asyncio.run(carry(agent, "x", {}))

    assert "root:" not in told
    assert "No files matching" in told


class SlowStart(AbstractCapability[Any]):
    """Lets each file tool start late, as a journal that waits for its row does."""

    async def before_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: dict[str, Any]
    ) -> dict[str, Any]:
        del ctx, tool_def
        await asyncio.sleep(0.05 if call.tool_name == "write_file" else 0)
        return args


def test_what_was_written_before_a_command_in_the_same_turn_is_there_when_it_runs() -> None:
    writes = [Call("write_file", {"path": f"/{n}.txt", "content": f"{n}\n"}) for n in range(10)]
    command = Call("execute", {"command": "cat *.txt; echo late > late.txt"})
    agent = deep_agent(
        scripted_model(lambda seen: [*writes, command, Call("read_file", {"path": "/late.txt"})], tell_all),
        interrupt_on={"write_file": True, "execute": True, "read_file": True},
        capabilities=[SlowStart()],
    )
    yes: dict[str, Verdict] = {name: ToolApproved() for name in ("write_file", "execute", "read_file")}

    told, _ = asyncio.run(carry(agent, "x", yes))
    returns = {tool: text for tool, _, text in json.loads(told)}

    assert returns["execute"].split("\n")[:10] == [str(n) for n in range(10)]
    assert "late" in returns["read_file"]


def test_an_uploaded_file_is_written_once_and_then_belongs_to_the_agent() -> None:
    agent = deep_agent(
        scripted_model(
            lambda seen: Call("write_file", {"path": "/uploads/a.csv", "content": "cleaned"}),
            lambda seen: Call("execute", {"command": "cat uploads/a.csv"}),
            tell_all,
        ),
        interrupt_on={"execute": True},
    )

    async def an_authors_deps() -> DeepAgentDeps:
        deps = DeepAgentDeps()
        await deps.upload_file("a.csv", b"raw")
        return deps

    async def scenario() -> tuple[Any, Workspace]:
        workspace = Workspace("run_1")
        deps = deps_for(workspace, await an_authors_deps())
        first = await agent.run("x", workspace=workspace, deps=deps)
        keep(deps, workspace)
        restored = Workspace.restore("run_1", workspace.manifest(), workspace.changed_blobs(()), workspace.state())
        deps = deps_for(restored, await an_authors_deps())
        assert isinstance(first.output, DeferredToolRequests)
        second = await agent.run(
            message_history=first.all_messages(),
            deferred_tool_results=first.output.build_results(approve_all=True),
            workspace=restored,
            deps=deps,
        )
        return second.output, restored

    told, workspace = asyncio.run(scenario())

    assert '"cleaned"' in told
    assert workspace.read("/uploads/a.csv") == b"cleaned"
    assert workspace.state()["uploads"] != {}


def test_another_process_finds_everything(tmp_path: Any) -> None:
    def first(seen: Seen) -> list[Call]:
        del seen
        todo = {"content": "archive", "status": "in_progress", "active_form": "archiving"}
        return [
            Call("write_todos", {"todos": [todo]}),
            Call("write_file", {"path": "/data/ü.txt", "content": "zwölf"}),
            Call("execute", {"command": "true"}),
        ]

    agent = deep_agent(scripted_model(first, tell_all), interrupt_on={"execute": True})
    workspace = Workspace("run_1")
    _, history = asyncio.run(segment(agent, workspace, prompt="x"))
    (tmp_path / "history.json").write_bytes(history)
    (tmp_path / "parked.json").write_text(
        json.dumps(
            {
                "manifest": workspace.manifest(),
                "blobs": {k: v.hex() for k, v in workspace.changed_blobs(()).items()},
                "state": workspace.state(),
            }
        )
    )

    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "zwölf" in done.stdout
    assert "archive" in done.stdout
    assert "no longer exists" not in done.stdout


_OTHER_PROCESS = """
import asyncio, json, pathlib, sys
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_ai.tools import DeferredToolResults, ToolApproved
from banksman_worker.deep import deep_agent, deps_for
from banksman_worker.scripted import Call, scripted_model
from banksman_worker.workspace import Workspace

folder = pathlib.Path(sys.argv[1])
parked = json.loads((folder / "parked.json").read_text())
workspace = Workspace.restore(
    "run_1",
    parked["manifest"],
    {k: bytes.fromhex(v) for k, v in parked["blobs"].items()},
    parked["state"],
)
agent = deep_agent(
    scripted_model(
        lambda seen: "unused",
        lambda seen: [Call("read_file", {"path": "/data/ü.txt"}), Call("read_todos")],
        lambda seen: " ".join(back.text for back in seen.returns),
    ),
    interrupt_on={"execute": True},
)
history = ModelMessagesTypeAdapter.validate_json((folder / "history.json").read_bytes())
result = asyncio.run(
    agent.run(
        message_history=history,
        deferred_tool_results=DeferredToolResults(approvals={"call_0_2": ToolApproved()}),
        workspace=workspace,
        deps=deps_for(workspace),
    )
)
print(result.output)
"""


def test_a_model_without_its_key_is_named_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    scripted = scripted_model(tell_all)

    with pytest.raises(ConfigurationError) as wanted:
        resolve_model(scripted, "openai:gpt-4.1")
    assert str(wanted.value) == "OPENAI_API_KEY is not set, needed for openai:gpt-4.1"
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is not set"):
        deep_agent("openai:gpt-4.1")
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY is not set"):
        deep_agent()
    with pytest.raises(ConfigurationError, match="'nobody:knows' cannot be used"):
        resolve_model(scripted, "nobody:knows")


def test_a_chosen_model_replaces_only_a_scripted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-unused")
    scripted, own = scripted_model(tell_all), TestModel()

    assert resolve_model(scripted) is scripted
    assert resolve_model(own, "openai:gpt-4.1") is own
    assert resolve_model(scripted, "openai:gpt-4.1").model_name == "gpt-4.1"


SYSADMIN = sysadmin_agents["sysadmin"]
NO = ToolDenied("Not on this machine.")


def test_sysadmin_with_everything_approved_leaves_a_script_and_an_archive() -> None:
    answer, workspace = asyncio.run(carry(SYSADMIN, PROMPT, {"write_file": ToolApproved(), "execute": ToolApproved()}))

    files = sorted(workspace.manifest())
    assert files[:1] == ["/backup.sh"]
    assert [f for f in files if f.startswith("/backups/data-") and f.endswith(".tar.gz")]
    assert "I've created the backup script" in answer
    assert "data/system.txt" in answer


def test_sysadmin_with_the_command_denied_says_why_and_keeps_only_the_script() -> None:
    answer, workspace = asyncio.run(carry(SYSADMIN, PROMPT, {"write_file": ToolApproved(), "execute": NO}))

    assert sorted(workspace.manifest()) == ["/backup.sh"]
    assert "I've created the backup script" in answer
    assert "I did not run it: Not on this machine." in answer


def test_sysadmin_with_the_file_denied_has_no_script_to_run() -> None:
    answer, workspace = asyncio.run(carry(SYSADMIN, PROMPT, {"write_file": NO, "execute": ToolApproved()}))

    assert "/backup.sh" not in workspace.manifest()
    assert "There is no backup script: Not on this machine." in answer
    assert "it did not work" in answer


def test_sysadmin_runs_the_edited_command_and_not_its_own() -> None:
    edited = ToolApproved(override_args={"command": "ls data backup.sh", "timeout": 5})

    answer, workspace = asyncio.run(carry(SYSADMIN, PROMPT, {"write_file": ToolApproved(), "execute": edited}))

    assert sorted(workspace.manifest()) == ["/backup.sh"]
    assert "it did not work" in answer


def test_the_refund_desk_pays_only_when_approved() -> None:
    desk = plain_agents["desk"]
    prompt = "Order A-1042 arrived broken, refund it."

    paid, _ = asyncio.run(carry(desk, prompt, {"issue_refund": ToolApproved()}))
    refused, _ = asyncio.run(carry(desk, prompt, {"issue_refund": NO}))
    asked, _ = asyncio.run(carry(desk, "Refund my lamp.", {"issue_refund": ToolApproved()}, {"ask_customer": "A-1043"}))

    assert paid == "Done: refunded 59.00 EUR for A-1042"
    assert refused == "I did not refund it: Not on this machine."
    assert asked == "Done: refunded 740.00 EUR for A-1043"


def test_a_scripted_model_streams_the_same_turns_it_answers() -> None:
    def external(path: str) -> str:
        """Ask elsewhere."""
        raise CallDeferred(metadata={"path": path})

    model = scripted_model(lambda seen: Call("external", {"path": "/a"}), tell_all)
    agent = Agent(model, tools=[external], output_type=[str, DeferredToolRequests])

    async def scenario() -> tuple[Any, list[ModelMessage]]:
        async with agent.run_stream("x") as streamed:
            output = await streamed.get_output()
            return output, streamed.all_messages()

    output, _ = asyncio.run(scenario())

    assert isinstance(model, ScriptedModel)
    assert isinstance(output, DeferredToolRequests)
    assert [call.args_as_dict() for call in output.calls] == [{"path": "/a"}]
