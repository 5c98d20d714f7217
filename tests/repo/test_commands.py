"""The commands, links and pins that the repository's own pages rely on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_bare_make_prints_every_target_with_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()

    printed = make(ROOT).stdout

    assert re.findall(r"^  make (\w+) +\S", printed, re.MULTILINE) == targets


def test_a_machine_without_a_new_enough_python_is_told_so(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)

    result = make(tmp_path, "setup", "PYTHON=", "UV=.uv/bin/uv")

    assert result.returncode != 0
    assert "Banksman needs Python 3.11 or newer" in result.stderr
    assert not (tmp_path / ".uv").exists()
    assert not (tmp_path / ".venv").exists()


def test_a_machine_without_venv_is_told_so(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)

    result = make(tmp_path, "setup", f"PYTHON={python}", "UV=.uv/bin/uv")

    assert result.returncode != 0
    assert "has no venv module" in result.stderr
    assert not (tmp_path / ".uv").exists()


def test_continuous_integration_runs_the_commands_of_the_readme() -> None:
    readme, script = ((ROOT / name).read_text() for name in ("README.md", ".ci/run"))

    assert "\nmake demo " in readme
    assert "\nmake test " in readme
    assert "\nmake test " in script
    assert "\nmake check " in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_lock_names_no_source_but_pypi() -> None:
    sources = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text()))

    assert sources == {"pypi.org", "files.pythonhosted.org"}


def test_the_lock_holds_the_pair_of_agent_libraries_that_pyproject_names() -> None:
    locked = {
        package["name"]: package["version"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    }
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]

    for pin in pins["constraint-dependencies"]:
        name, version = pin.split("==")
        assert locked[name] == version


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_picture_is_small_and_shown_with_words_that_say_what_is_on_it() -> None:
    taken = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").glob("*.png")}
    text = "\n".join(page.read_text() for page in PAGES)
    shown = {name: words for words, name in re.findall(r"!\[([^\]]+)\]\((?:docs/)?images/([\w-]+\.png)\)", text)}
    shown |= dict(re.findall(r'<img src="images/([\w-]+\.png)"[^>]* alt="([^"]+)">', text))

    assert taken.keys() == shown.keys()
    assert max(taken.values()) < 250_000
    assert min(len(words) for words in shown.values()) > 60


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, without the flags of a make that may be running this test."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
