"""The other pair of agent libraries, which `make pairs` runs the worker's tests on."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAIR = ("pydantic-ai-slim", "pydantic-deep")


def other() -> dict[str, str]:
    pinned = dict(
        re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "tests/compat/requirements.txt").read_text(), re.MULTILINE)
    )
    return {name: pinned[name] for name in PAIR}


def locked() -> dict[str, str]:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return {item["name"]: item["version"] for item in packages if item["name"] in PAIR}


def test_the_other_pair_differs_from_the_locked_one_in_both_libraries() -> None:
    assert not set(other().items()) & set(locked().items())


def test_these_tests_run_on_one_of_the_two_pairs() -> None:
    expected = other() if Path(sys.prefix).name == ".venv-other" else locked()

    assert {name: version(name) for name in PAIR} == expected
