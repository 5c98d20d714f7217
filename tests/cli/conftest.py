"""The command line as a person at a terminal or a script runs it, against a real gateway."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from banksman import cli
from banksman.settings import GatewaySettings
from tests.client.conftest import served, site
from tests.gateway.scenes import Site

__all__ = ["served", "site"]

Banksman = Callable[..., subprocess.CompletedProcess[str]]


def run(
    *arguments: str, cwd: Path, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command in this process, with a command's own folder, environment and streams."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BANKSMAN_")}
    clean |= {"HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd / ".config")} | dict(env or {})
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(os, "environ", clean)
        patch.setattr(sys, "argv", ["banksman", *arguments])
        patch.setattr(sys, "stdin", io.StringIO(stdin or ""))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    said, complained = (stream.buffer.getvalue().decode().replace("\r\n", "\n") for stream in (out, err))
    return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, said, complained)


@pytest.fixture
def banksman(site: Site, served: GatewaySettings, tmp_path: Path) -> Banksman:
    """Runs a command below a folder that holds a stack's data."""
    facts: dict[str, Any] = {
        "gateway_url": served.public_url,
        "submit_key": bearer(site.key("runs:submit", "runs:read", "requests:read")),
        "maildir": str(tmp_path / ".banksman" / "mail"),
        "reviewers": [{"email": person.email, "token": bearer(site.token(person))} for person in (site.ana, site.ben)],
        "pids": {"gateway": os.getpid()},
    }
    below = tmp_path / "some" / "where"
    below.mkdir(parents=True)
    (tmp_path / ".banksman").mkdir()
    (tmp_path / ".banksman" / "stack.json").write_text(json.dumps(facts))

    def call(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return run(*arguments, cwd=below, **more)

    return call


def bearer(headers: Mapping[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")
