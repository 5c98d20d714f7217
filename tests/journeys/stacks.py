"""`banksman up` as a process of its own: started as a user starts it, hurt by pid, and always stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import psycopg
import redis

from banksman.embedded import processes
from tests.journeys.mailbox import Mailbox
from tests.journeys.outsider import Outsider

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
AGENTS = "banksman_sysadmin:agents,banksman_plain:agents,tests.journeys.yard:agents"


def until(fact: Callable[[], T | None], *, within: float = 20, what: str = "it") -> T:
    """The first true answer of `fact`, asked again and again; a failed test when there is none in time."""
    deadline = time.monotonic() + within
    while not (found := fact()):
        assert time.monotonic() < deadline, f"{what} did not become true within {within:.0f} s"
        time.sleep(0.02)
    return found


def cli(*arguments: str, data: Path) -> subprocess.CompletedProcess[str]:
    """`banksman ARGUMENTS`, in another process, as in a second terminal."""
    return subprocess.run(
        [sys.executable, "-m", "banksman.cli", *arguments],
        cwd=data.parent,
        env=environ(data),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )


def environ(data: Path, **more: str) -> dict[str, str]:
    """The environment of a terminal without any setting of Banksman's but the data folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BANKSMAN_")}
    return clean | {"BANKSMAN_DATA_DIR": str(data), "NO_COLOR": "1", "COLUMNS": "120"} | more


class Stack:
    """One stack on one data folder, from its start to its end."""

    def __init__(self, data: Path, *, workers: int = 1, settings: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.yard = data.parent / "yard"
        self.yard.mkdir(parents=True, exist_ok=True)
        self.log = data.with_suffix(".log")
        each_mail_at_once = {"BANKSMAN_GATHER_MEDIUM_MINUTES": "0", "BANKSMAN_GATHER_LOW_MINUTES": "0"}
        arguments = ("up", "--workers", str(workers), "--agents", AGENTS, "--port", "0")
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "banksman.cli", *arguments],
                cwd=ROOT,
                env=environ(data, JOURNEY_YARD=str(self.yard), **each_mail_at_once, **(settings or {})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._programs: list[Outsider] = []

    def __enter__(self) -> Self:
        try:
            self.wait_for(lambda: "ready after" in self.said(), within=120, what="the stack")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, fact: Callable[[], T | None], *, within: float = 20, what: str = "it") -> T:
        """`until`, with the stack's last words when it fails."""

        def alive() -> T | None:
            assert self.popen.poll() is None, f"the stack has ended:\n{self.said()}"
            return fact()

        try:
            return until(alive, within=within, what=what)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.said()[-6000:]}") from None

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.data / "stack.json").read_text())

    @property
    def url(self) -> str:
        return self.facts["gateway_url"]

    @property
    def pids(self) -> dict[str, int]:
        return self.facts["pids"]

    @property
    def mail(self) -> Mailbox:
        return Mailbox(Path(self.facts["maildir"]))

    def program(self) -> Outsider:
        """A program that may submit and read."""
        return self._outsider(self.facts["submit_key"])

    def reviewer(self, email: str = "ana@example.org") -> Outsider:
        """A person's script."""
        tokens = {item["email"]: item["token"] for item in self.facts["reviewers"]}
        return self._outsider(tokens[email])

    def caller(self, token: str) -> Outsider:
        """Whoever has this credential."""
        return self._outsider(token)

    def _outsider(self, token: str) -> Outsider:
        self._programs.append(Outsider(self.url, token))
        return self._programs[-1]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command in a second terminal."""
        return cli(*arguments, data=self.data)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What stands in the database, for looking alone."""
        with psycopg.connect(self.facts["database_url"], autocommit=True) as conn:
            return conn.execute(statement.encode(), values).fetchall()

    def refused(self) -> list[Any]:
        """What the broker has refused to anybody since it started: the services never try what they may not."""
        with redis.Redis.from_url(str(self.facts["broker_url"])) as owner:
            return cast("list[Any]", owner.acl_log())

    def kill(self, *names: str) -> dict[str, int]:
        """`kill -9`, and nothing else; the pids that were."""
        before = self.pids
        for name in names:
            os.kill(before[name], signal.SIGKILL)
        return {name: before[name] for name in names}

    @contextmanager
    def gone(self, name: str) -> Generator[None]:
        """One process is killed and stays away for the length of the block: the supervisor stands still meanwhile."""
        self.popen.send_signal(signal.SIGSTOP)
        try:
            killed = self.kill(name)
            yield
        finally:
            self.popen.send_signal(signal.SIGCONT)
        self.replaced(killed)

    @contextmanager
    def hanging(self, name: str) -> Generator[None]:
        """One process neither dies nor answers for the length of the block."""
        pid = self.pids[name]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def replaced(self, killed: Mapping[str, int], *, within: float = 30) -> None:
        """Waits until the supervisor has put others in their place and they answer."""

        def others() -> bool:
            return all(self.pids[name] != pid for name, pid in killed.items())

        self.wait_for(others, within=within, what=f"new pids of {', '.join(killed)}")

    def lines(self, word: str, *, of: str = "lines") -> list[str]:
        """What tools have written into the yard, of one story."""
        path = self.yard / of
        written = path.read_text().splitlines() if path.exists() else []
        return [line for line in written if word in line.split()]

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        for program in self._programs:
            program.close()
        for hold in self.yard.glob("hold-*"):
            hold.unlink()  # a worker that stops waits for a tool that has started
        if self.popen.poll() is None:
            self.popen.send_signal(sign)
        return self.popen.wait(60)


def living(pids: Mapping[str, int]) -> set[str]:
    """The names of those that still live."""
    return {name for name, pid in pids.items() if processes.identify(pid) is not None}
