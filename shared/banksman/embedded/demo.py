"""`banksman demo`: the whole loop once, on real servers, with the job that this product grew from.

A run asks to write a file and to run a command; both wait for a person. At a terminal you are asked here, and may as
well decide in the inbox or by the mailed link. Without one the demo decides as the original example did: files may be
written, commands may not be run. Then the run goes on, and its answer and its files are shown.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from rich.console import Console
from rich.text import Text

from banksman.client import Client
from banksman.embedded import service
from banksman.embedded.service import Service
from banksman.errors import BanksmanError, ConfigurationError, Conflict, InvalidInput
from banksman.shapes import Request, Run

AGENTS = "banksman_sysadmin:agents"
PROMPT = "Create a backup script at /backup.sh that archives the /data directory"
_START_WITHIN = 150.0
_FINISH_WITHIN = 300.0


def run_demo(*, data_dir: Path | None = None, stdin: IO[str] | None = None, stdout: IO[str] | None = None) -> int:
    """Nothing → a finished run, shown; returns the exit code. Without `data_dir` nothing is kept."""
    console = Console(file=stdout, highlight=False, soft_wrap=True)
    keyboard = stdin or sys.stdin
    asker = keyboard if keyboard is not None and keyboard.isatty() else None
    former = signal.signal(signal.SIGTERM, _leave)
    try:
        with _folder(data_dir) as folder, _stack(folder, console) as facts:
            return _Demo(console, asker, facts).show()
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    except BanksmanError as error:
        console.print(Text(str(error), style="red"))
        return 2 if isinstance(error, ConfigurationError) else 1
    finally:
        signal.signal(signal.SIGTERM, former)


class _Demo:
    """One run, shown from its submission to its end."""

    def __init__(self, console: Console, asker: IO[str] | None, facts: dict[str, Any]) -> None:
        self._console = console
        self._asker = asker
        self._facts = facts
        self._reviewer = facts["reviewers"][0]
        self._seen: set[str] = set()

    def show(self) -> int:
        url = self._facts["gateway_url"]
        with Client(url, self._facts["submit_key"]) as program, Client(url, self._reviewer["token"]) as person:
            run = program.submit("sysadmin", PROMPT)
            self._say(f"Submitted {run.id}:\n  {PROMPT}")
            if self._asker:
                self._say(f"Decide here, in the inbox at {url} or by the mail in {self._facts['maildir']}.")
            run = self._follow(program, person, run)
            return self._end(program, run)

    def _follow(self, program: Client, person: Client, run: Run) -> Run:
        """The run once it is over; every request on the way is shown and decided."""
        deadline = None if self._asker else time.monotonic() + _FINISH_WITHIN
        while not run.over:
            if deadline is not None and time.monotonic() > deadline:
                raise InvalidInput(f"Run {run.id} is still {run.status} after {_FINISH_WITHIN:.0f} s.")
            asked = [r for r in program.requests(state="open", run_id=run.id) if r.id not in self._seen]
            for number, request in enumerate(asked, 1):
                self._seen.add(request.id)
                self._present(request, number, len(asked))
                self._decide(person, request)
            if not asked:
                time.sleep(0.05)
            run = program.run(run.id)
        return run

    def _present(self, request: Request, number: int, count: int) -> None:
        self._console.rule(characters="=")
        self._console.print(Text(f"APPROVAL REQUIRED ({number} of {count})", style="bold yellow"))
        self._console.print(Text(f"Request:   {request.id}, {request.tier} tier"))
        if request.context.why_again:
            self._console.print(Text(f"Again:     {_visible(request.context.why_again)}"))
        self._console.print(Text(f"Tool:      {request.tool}"))
        self._console.print(Text("Arguments:"))
        for name, value in request.arguments.items():
            self._console.print(Text(f"  {_visible(name)}: {_plain(value)}".replace(": \n", ":\n")))
        self._console.rule(characters="=")

    def _decide(self, person: Client, request: Request) -> None:
        if self._asker is None:
            yes, reason = (request.tool != "execute", f"User denied {request.tool} for safety reasons")
        else:
            answer = self._ask(person, request)
            if answer is None:
                return
            yes, reason = answer
        try:
            after = person.approve(request) if yes else person.deny(request, reason=reason)
        except Conflict as conflict:
            self._say(f"{conflict}\n")
            return
        how = "" if yes else f": {reason}"
        self._say(f"{self._reviewer['email']} → {after.tool} {after.state}{how}\n")

    def _ask(self, person: Client, request: Request) -> tuple[bool, str] | None:
        """Yes or no with a reason, from the terminal; None when somebody decided elsewhere meanwhile."""
        while True:
            line = self._line(person, request, "Approve? [y/n] ")
            if line is None:
                return None
            if line.lower() in ("y", "yes"):
                return True, ""
            if line.lower() in ("n", "no"):
                reason = self._line(person, request, "Reason (the agent reads it): ")
                return None if reason is None else (False, reason or "The reviewer said no.")

    def _line(self, person: Client, request: Request, prompt: str) -> str | None:
        assert self._asker is not None
        self._console.print(Text(prompt, style="bold"), end="")
        while not select.select([self._asker], [], [], 0.5)[0]:
            now = person.request(request.id)
            if now.state != "open":
                by = ", ".join(now.decision.by) if now.decision else "the system"
                self._say(f"\n{request.tool} was {now.state} elsewhere, by {by}.\n")
                return None
        line = self._asker.readline()
        if not line:
            raise KeyboardInterrupt
        return line.strip()

    def _end(self, program: Client, run: Run) -> int:
        if run.status != "finished":
            self._console.print(Text(f"The run is {run.status}: {run.error}", style="red"))
            return 1
        output = run.output if isinstance(run.output, str) else json.dumps(run.output, indent=2)
        self._console.print(Text("Final output:", style="bold green"))
        self._say(f"{output}\n")
        self._console.print(Text("Files in storage:", style="bold green"))
        for file in program.files(run.id):
            lines = len(program.file(run.id, file.path).splitlines())
            self._say(f"  {file.path}: {lines} lines")
        return 0

    def _say(self, text: str) -> None:
        self._console.print(Text(text))


@contextmanager
def _stack(folder: Path, console: Console) -> Generator[dict[str, Any]]:
    """A stack of its own, as another process: what it says goes into a file, and it ends with this process."""
    began = time.monotonic()
    log = folder / "up.log"
    console.print("Starting PostgreSQL, Valkey, a mail catcher, worker, gateway and notifier ...")
    argv = ["-m", "banksman.embedded.child", "banksman.embedded.stack"]
    stack = Service(
        name="the stack",
        argv=[sys.executable, *argv, "--data-dir", str(folder), "--agents", AGENTS],
        env=dict(os.environ),
        cwd=Path.cwd(),
        lifeline=True,
        stop_within=60.0,
    )

    def ready(_pid: int) -> bool:
        return "ready after" in log.read_text(errors="replace")

    with service.running(stack, ready=ready, log=log, within=_START_WITHIN):
        facts: dict[str, Any] = json.loads((folder / "stack.json").read_text())
        console.print(f"Ready after {time.monotonic() - began:.1f} s at {facts['gateway_url']}\n")
        yield facts


@contextmanager
def _folder(chosen: Path | None) -> Generator[Path]:
    """The folder that was chosen, or one that goes away with the demo."""
    if chosen is not None:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield chosen
        return
    folder = Path(tempfile.mkdtemp(prefix="banksman-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain(value: object) -> str:
    """A value as text in which nothing moves the cursor or hides: several lines stay several lines."""
    if isinstance(value, str) and "\n" in value:
        return "".join(f"\n    | {_visible(line)}" for line in value.removesuffix("\n").split("\n"))
    return _visible(json.dumps(value, ensure_ascii=False))


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def _leave(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
