"""The environment of the other pair of libraries holds everything that the first one does."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_the_other_pair_pins_everything_that_banksman_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *(need for extra in project["optional-dependencies"].values() for need in extra)]
    pins = {
        line.partition("==")[0].partition("[")[0]
        for line in (ROOT / "tests/compat/requirements.txt").read_text().splitlines()
        if not line.startswith(("#", " "))
    }

    missing = {Requirement(need).name for need in needs} - pins - {"banksman"}

    assert not missing, f"run `make lock`: tests/compat/requirements.txt lacks {', '.join(sorted(missing))}"
