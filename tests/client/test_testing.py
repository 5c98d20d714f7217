"""The pytest fixture `approvals`, used as a user would: a project of their own, with their own agent and tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

AGENTS = '''
"""A refund desk, as plain pydantic-ai."""
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel


def think(messages, info):
    prompt = messages[0].parts[-1].content
    returns = [p for m in messages for p in m.parts if isinstance(p, ToolReturnPart)]
    if returns:
        return ModelResponse([TextPart(" / ".join(str(r.content) for r in returns))])
    if "nothing" in prompt:
        return ModelResponse([TextPart("done")])
    return ModelResponse([ToolCallPart("refund", {"order": "A-1", "cents": 900}, tool_call_id="c1")])


desk = Agent(FunctionModel(think), output_type=[str, DeferredToolRequests])


@desk.tool_plain(requires_approval=True)
def refund(order: str, cents: int) -> str:
    """Pay money back."""
    return f"refunded {cents} for {order}"


agents = {"desk": desk}
'''

TESTS = """
import pytest
from acme import desk


def test_approved(approvals):
    approvals.when(tool="refund", decide="approve")
    run = approvals.run("desk", "refund it")
    assert (run.status, run.output) == ("finished", "refunded 900 for A-1")
    approvals.assert_asked("refund", arguments={"order": "A-1"}, times=1)


def test_denied_and_the_reason_is_read(approvals):
    approvals.when(tool="*", decide="approve")
    approvals.when(tool="refund", decide="deny", reason="Too much money.")
    run = approvals.run(desk, "refund it")
    assert run.status == "finished" and "Too much money." in run.output


def test_decided_by_a_function_and_edited(approvals):
    approvals.when(tool="refund", decide=lambda r: r.arguments["cents"] < 1000, arguments={"cents": 5})
    assert "refunded 5 for A-1" in approvals.run("desk", "refund it").output


def test_nothing_was_asked(approvals):
    assert approvals.run("desk", "nothing").output == "done"
    approvals.assert_not_asked()


def test_without_a_rule_it_fails(approvals):
    approvals.run("desk", "refund it")


def test_wrong_expectations_fail(approvals):
    approvals.when()
    approvals.run("desk", "refund it")
    approvals.assert_asked("refund", arguments={"cents": 1})
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    project = tmp_path_factory.mktemp("acme")
    (project / "acme.py").write_text(AGENTS)
    (project / "test_acme.py").write_text(TESTS)
    (project / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nbanksman_agents = "acme:agents"\nfilterwarnings = ["error"]\n'
        'addopts = ["-p", "no:valkey"]\n'
    )
    return run_pytest(project)


def run_pytest(project: Path) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("BANKSMAN", "PYTEST"))}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "name",
    [
        "test_approved",
        "test_denied_and_the_reason_is_read",
        "test_decided_by_a_function_and_edited",
        "test_nothing_was_asked",
    ],
)
def test_a_users_test_decides_by_rule(name: str, report: str) -> None:
    assert f"{name} PASSED" in report, report


def test_an_undecided_request_fails_the_test_and_says_what_to_add(report: str) -> None:
    assert "test_without_a_rule_it_fails FAILED" in report
    assert "approvals.when(tool='refund', decide='approve')" in report


def test_a_wrong_expectation_says_what_was_asked(report: str) -> None:
    assert "test_wrong_expectations_fail FAILED" in report
    assert re.search(r'Asked was: refund\(\{"order": "A-1", "cents": 900\}\)\.', report) or (
        'Asked was: refund({"cents": 900, "order": "A-1"}).' in report
    )


def test_a_project_that_lists_no_agents_is_told_how(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(approvals): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:valkey\n")

    assert 'banksman_agents = "MODULE:ATTR"' in run_pytest(tmp_path)


def test_loading_the_plugin_imports_nothing_of_weight() -> None:
    code = (
        "import sys, banksman.testing;"
        "heavy = {'httpx', 'pydantic', 'psycopg', 'celery', 'rich', 'typer'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    environ = {**os.environ, "PYTHONPATH": ""}

    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
