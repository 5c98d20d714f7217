"""The command line as a person at a terminal or a script runs it, against a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from banksman.settings import GatewaySettings
from tests.client.conftest import served, site
from tests.gateway.scenes import Site

__all__ = ["served", "site"]

Banksman = Callable[..., subprocess.CompletedProcess[str]]


def run(
    *arguments: str,
    cwd: Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BANKSMAN_")}
    return subprocess.run(
        [sys.executable, "-m", "banksman.cli", *arguments],
        cwd=cwd,
        env=clean | {"HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd / ".config")} | dict(env or {}),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def banksman(site: Site, served: GatewaySettings, tmp_path: Path) -> Banksman:
    """Runs a command below a folder that holds a stack's data; stops the test when it shows a traceback."""
    facts: dict[str, Any] = {
        "gateway_url": served.public_url,
        "submit_key": bearer(site.key("runs:submit", "runs:read", "requests:read")),
        "maildir": str(tmp_path / ".banksman" / "mail"),
        "reviewers": [
            {"email": person.email, "token": bearer(site.token(person))}
            for person in (site.ana, site.ben)
        ],
        "pids": {"gateway": os.getpid()},
    }
    below = tmp_path / "some" / "where"
    below.mkdir(parents=True)
    (tmp_path / ".banksman").mkdir()
    (tmp_path / ".banksman" / "stack.json").write_text(json.dumps(facts))

    def call(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        ended = run(*arguments, cwd=below, **more)
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended

    return call


def bearer(headers: Mapping[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")
