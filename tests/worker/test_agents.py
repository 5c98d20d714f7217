"""Listing agents: what loads, and the one sentence that a wrong listing gets."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic_ai import Agent, AgentRunResult, CallDeferred, DeferredToolRequests, DeferredToolResults
from pydantic_deep import DeepAgentDeps  # pyright: ignore[reportMissingTypeStubs]

from banksman.errors import ConfigurationError
from banksman_plain import support
from banksman_worker import agents
from banksman_worker.asking import external, question, questions
from banksman_worker.scripted import Call, Seen, scripted_model
from banksman_worker.workspace import Workspace

Writer = Callable[[str, str], str]

_BEGINNING = """
from dataclasses import dataclass
from pydantic_ai import Agent
from banksman import Listed, deep_agent
from banksman_worker.scripted import scripted_model

def model():
    return scripted_model(lambda seen: "done")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    """Writes a module into the current directory, and gives the spec of its `agents`."""
    written: list[str] = []
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(dedent(_BEGINNING) + dedent(text))
        written.append(name)
        return f"{name}:agents"

    yield write
    sys.path[:] = path
    for name in written:
        sys.modules.pop(name, None)


def refused(*specs: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        agents.load(specs)
    return str(caught.value)


def test_the_shipped_examples_load() -> None:
    loaded = agents.load(["banksman_plain:agents", "banksman_sysadmin:agents"])

    assert set(loaded) == {"desk", "support", "sysadmin"}
    assert loaded["sysadmin"].flagged == {"write_file", "edit_file", "execute"}
    assert isinstance(loaded["sysadmin"].deps_for(Workspace("run_1")), DeepAgentDeps)
    assert loaded["desk"].deps_for(Workspace("run_1")) is None
    assert loaded["desk"].output_type is None
    assert loaded["support"].output_type == [str, DeferredToolRequests]


def test_a_module_of_the_current_directory_is_found_with_its_deps_and_version(module: Writer) -> None:
    spec = module(
        "acme_refunds",
        """
        @dataclass
        class Deps:
            run: str

        agents = {
            "refunds": Listed(
                Agent(model(), deps_type=Deps), deps=lambda workspace: Deps(workspace.run_id), version="3"
            ),
            "plain": Agent(model()),
        }
        """,
    )

    loaded = agents.load([spec])

    assert loaded["refunds"].version == "3"
    assert loaded["refunds"].deps_for(Workspace("run_7")).run == "run_7"
    assert loaded["plain"].version == "1"


def test_one_agent_or_a_function_may_stand_for_the_mapping(module: Writer) -> None:
    one = module("acme_one", "agents = Agent(model(), name='solo')")
    made = module("acme_made", "def agents():\n    return {'made': Agent(model())}")

    assert set(agents.load([one, made])) == {"solo", "made"}


def test_a_deep_agents_own_deps_get_the_runs_todos(module: Writer) -> None:
    spec = module(
        "acme_deep",
        """
        from pydantic_deep import DeepAgentDeps
        made = []

        def deps(workspace):
            made.append(DeepAgentDeps())
            return made[-1]

        agents = {"deep": Listed(deep_agent(model()), deps=deps)}
        """,
    )
    workspace = Workspace("run_1")
    workspace.todos = [{"content": "Read", "status": "pending", "active_form": "Reading"}]

    deps: Any = agents.load([spec])["deep"].deps_for(workspace)

    assert deps is sys.modules["acme_deep"].made[0]
    assert [todo.content for todo in deps.todos] == ["Read"]


def test_a_module_that_fails_names_itself_the_error_and_the_line(module: Writer, tmp_path: Path) -> None:
    spec = module("acme_broken", "x = 1\nagents = {'a': 1 / 0}")
    line = (tmp_path / "acme_broken.py").read_text().splitlines().index("agents = {'a': 1 / 0}") + 1

    message = refused(spec)

    assert "'acme_broken' does not import: ZeroDivisionError: division by zero" in message
    assert f"{tmp_path / 'acme_broken.py'}:{line}" in message


def test_a_module_that_does_not_parse_names_the_line(module: Writer, tmp_path: Path) -> None:
    message = refused(module("acme_typo", "agents = {"))

    assert "'acme_typo' does not import: SyntaxError" in message
    assert f"{tmp_path / 'acme_typo.py'}:" in message


def test_a_module_that_exits_does_not_end_the_worker_quietly(module: Writer) -> None:
    assert "'acme_exit' does not import: SystemExit: 0" in refused(module("acme_exit", "import sys; sys.exit(0)"))


def test_a_missing_module_and_a_missing_import_are_told_apart(module: Writer, tmp_path: Path) -> None:
    missing = refused("acme_nowhere.refunds:agents")
    inside = refused(module("acme_inside", "import acme_left_out"))

    assert "There is no module 'acme_nowhere'" in missing
    assert str(tmp_path) in missing
    assert "'acme_inside' does not import: ModuleNotFoundError: No module named 'acme_left_out'" in inside


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agent = {}", "has no 'agents'"),
        ("agents = {}", "lists no agents"),
        ("agents = 'refunds'", "is a str. It should be a mapping"),
        ("agents = {'a': 'refunds'}", "'a' in acme_wrong:agents is a str, not an agent"),
        ("agents = {'a b': Agent(model())}", "called 'a b'"),
        ("agents = {3: Agent(model())}", "called 3"),
        ("agents = Agent(model())", "has no name"),
        ("agents = {'a': Agent()}", "'a' in acme_wrong:agents has no model"),
        ("agents = {'a': Listed(Agent(model()), version='')}", "version of the agent 'a'"),
        ("agents = {'a': Agent(model(), deps_type=dict)}", "expects deps of type dict, and nothing makes them"),
        (
            "async def deps(workspace): ...\nagents = {'a': Listed(Agent(model()), deps=deps)}",
            "should be an ordinary function",
        ),
        ("def agents():\n    raise KeyError('REFUNDS_URL')", "failed: KeyError: 'REFUNDS_URL' ("),
    ],
)
def test_a_wrong_listing_is_one_clear_sentence(module: Writer, text: str, said: str) -> None:
    assert said in refused(module("acme_wrong", text))


@pytest.mark.parametrize("spec", ["acme", ":agents", "acme:", ""])
def test_a_spec_names_a_module_and_an_attribute(spec: str) -> None:
    assert "write module:attribute" in refused(spec)


def test_a_name_that_is_taken_stops_the_start_up(module: Writer) -> None:
    first = module("acme_first", "agents = {'refunds': Agent(model())}")
    second = module("acme_second", "agents = {'refunds': Agent(model())}")

    message = refused(first, second)

    assert "Two agents are called 'refunds', in acme_first:agents and in acme_second:agents" in message


def test_no_agents_at_all_says_where_to_list_them() -> None:
    assert "BANKSMAN_AGENTS" in refused()


@dataclass(frozen=True)
class Put:
    """A call that was put off."""

    requests: DeferredToolRequests

    @property
    def metadata(self) -> dict[str, Any]:
        (call,) = self.requests.calls
        return self.requests.metadata[call.tool_call_id]

    def answered(self, answer: str) -> DeferredToolResults:
        (call,) = self.requests.calls
        return self.requests.build_results(calls={call.tool_call_id: answer})


def waiting(result: AgentRunResult[Any]) -> Put:
    assert isinstance(result.output, DeferredToolRequests)
    return Put(result.output)


async def support_says(prompt: str | None = None, **more: Any) -> AgentRunResult[Any]:
    outputs: list[Any] = [str, DeferredToolRequests]
    return await support.run(prompt, output_type=outputs, **more)


def test_support_asks_then_waits_then_answers_from_both() -> None:
    async def talk() -> None:
        asked = await support_says("My lamp of A-1042 broke.")
        put = waiting(asked)
        assert put.metadata["banksman"] == "question"
        assert put.metadata["options"] == ["Send a new one", "Say sorry"]

        sent = await support_says(
            message_history=asked.all_messages(), deferred_tool_results=put.answered("Send a new one")
        )
        assert waiting(sent).metadata == {"banksman": "external", "order": "A-1042"}

        told = await support_says(
            message_history=sent.all_messages(), deferred_tool_results=waiting(sent).answered("left with the neighbour")
        )
        assert told.output == "A new one was sent: left with the neighbour"

        sorry = await support_says(
            message_history=asked.all_messages(), deferred_tool_results=put.answered("Say sorry")
        )
        assert sorry.output == "We are sorry, and will do better."

    asyncio.run(talk())


def test_a_question_without_words_or_choice_is_not_asked() -> None:
    with pytest.raises(ValueError, match="needs words"):
        question("  ")
    with pytest.raises(ValueError, match="2 to 20 different choices"):
        question("Which?", choices=["a", "a"])
    assert isinstance(external(order="A-1"), CallDeferred)


def test_the_model_is_asked_to_correct_a_question_that_cannot_be_shown() -> None:
    def same(seen: Seen) -> Call:
        del seen
        return Call("ask_person", {"question": "Which?", "choices": ["a", "a"]})

    def different(seen: Seen) -> Call:
        del seen
        return Call("ask_person", {"question": "Which?", "choices": ["a", "b"]})

    agent = Agent(scripted_model(same, different), toolsets=[questions()])

    result = asyncio.run(agent.run("Ask.", output_type=[str, DeferredToolRequests]))

    assert waiting(result).metadata["options"] == ["a", "b"]
