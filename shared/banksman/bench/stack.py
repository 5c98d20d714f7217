"""Banksman as it is measured: the embedded stack with its defaults, in a folder that is thrown away."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from banksman.bench.load import Way
from banksman.embedded import service
from banksman.embedded.service import Service

_AGENTS = "banksman.bench.subject:agents"
_START_WITHIN = 150.0


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is up."""

    way: Way
    _facts: Path

    def pids(self) -> Mapping[str, int]:
        """Its processes as they are now: what was killed has been replaced."""
        return json.loads(self._facts.read_text())["pids"]

    def metric(self, part: str, name: str) -> float:
        """What a process says of itself: the sum over all labels."""
        with urlopen(json.loads(self._facts.read_text())["metrics_urls"][part], timeout=30) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@contextmanager
def running(folder: Path, workers: int, **environ: str) -> Generator[Stack]:
    """A stack for the length of the block: no `BANKSMAN_*` of the caller's makes it faster or slower."""
    folder.mkdir()
    facts = folder / "data" / "stack.json"
    arguments = ("--data-dir", str(folder / "data"), "--agents", _AGENTS, "--workers", str(workers))
    stack = Service(
        name="the stack",
        argv=[sys.executable, "-m", "banksman.embedded.child", "banksman.embedded.stack", *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("BANKSMAN_")} | environ,
        cwd=folder,
        lifeline=True,
        stop_within=60.0,
    )
    with service.running(stack, ready=lambda _: facts.exists(), log=folder / "up.log", within=_START_WITHIN):
        found = json.loads(facts.read_text())
        yield Stack(Way(found["gateway_url"], found["submit_key"], found["reviewers"][0]["token"]), facts)
