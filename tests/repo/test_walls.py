"""The walls that import-linter cannot see: what a process has loaded, and who calls the writers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEDGER = ROOT / "shared" / "banksman" / "ledger"
SOURCES = [
    path
    for folder in ("shared", "services")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if LEDGER not in path.parents
]
DOORWAYS = {
    "executions": ("banksman_worker/journal.py", "cli/retention.py"),
    "votes": "banksman_gateway/decide.py",
    "withdrawals": "banksman_gateway/withdraw.py",
    "decisions": "banksman_gateway/decide.py",
}
LOAD_EVERYTHING = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
sys.exit(", ".join(sorted({"pydantic_ai", "pydantic_deep"} & set(sys.modules))) or 0)
"""


@pytest.mark.parametrize("package", ["banksman_gateway", "banksman_notifier", "banksman.ledger", "banksman.wire"])
def test_the_agent_libraries_stay_out_of_every_process_but_the_worker(package: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOAD_EVERYTHING, package], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("table", DOORWAYS)
def test_each_guarded_table_has_one_doorway(table: str) -> None:
    writers = set(writers_of(table))
    assert writers, f"no function of the ledger writes {table}: has the table been renamed?"

    callers = {
        str(path.relative_to(ROOT)): sorted(used) for path in SOURCES if (used := writers & set(ledger_names(path)))
    }

    assert [path for path in callers if not path.endswith(DOORWAYS[table])] == [], callers


def writers_of(table: str) -> Iterator[tuple[str, str]]:
    """(module, function) of each public ledger function with a statement that changes `table`."""
    statement = re.compile(rf"(INSERT INTO|UPDATE|DELETE FROM)\s+{table}\b")
    for path in sorted(LEDGER.glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                if any(isinstance(text, str) and statement.search(text) for text in texts):
                    yield path.stem, node.name


def ledger_names(path: Path) -> Iterator[tuple[str, str]]:
    """(module, function) of each ledger function that a file mentions, whichever way it imports."""
    tree = ast.parse(path.read_text())
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "banksman.ledger":
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("banksman.ledger."):
            for alias in node.names:
                yield str(node.module).rsplit(".", 1)[1], alias.name
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name)) if name in modules:
                yield modules[name], node.attr
            case _:
                pass
