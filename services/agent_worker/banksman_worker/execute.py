"""Runs an approved command on a private copy of the workspace, and brings its changes back.

The command runs for real, in a directory made for it alone (mode 0700) and filled with the run's
files: **workspace path `/backup.sh` is `<directory>/backup.sh`**. The command starts in that
directory and has it as HOME, so `sh backup.sh` and `sh ~/backup.sh` find the file and
`sh /backup.sh` does not. When the command ends, whatever it made, changed or deleted there is the
workspace's new state. Nothing outside the directory is kept.

What holds the command in: an environment of PATH, HOME and LANG (none of the worker's settings or
keys), no inherited files or sockets, the user `nobody` when the worker is root, a session of its
own that is killed as a whole at the deadline, at the end and with its worker, and caps on what it
prints and leaves behind. It is not a sandbox: the command can use the network, the CPU, and
whatever this machine lets that user read.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from banksman.errors import BanksmanError, InvalidInput, LostLease
from banksman_worker.lease import HELD, Lease
from banksman_worker.scratch import Layout, Place, fill, private_directory, read_back
from banksman_worker.watch import Watch
from banksman_worker.workspace import Workspace

DEFAULT_SECONDS = 120
MAX_SECONDS = 600
MAX_OUTPUT_BYTES = 32 * 1024
TIMED_OUT = 124
"""The exit code that `timeout(1)` reports for a command stopped at its deadline."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCKS = 256 * 1024 * 1024 // 512
_WRAPPER = f'ulimit -c 0; ulimit -f {_BLOCKS}; exec /bin/sh -c "$1"'
# Commands wait on other machines and disks: a pool of their own keeps them away from the loop's
# default one, which resolves the names that model requests need.
_commands = ThreadPoolExecutor(max_workers=8, thread_name_prefix="execute")
_watch = Watch()


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    exit_code: int
    output: str
    written: Mapping[str, tuple[bytes, bool]]
    """Path to (content, executable), for files made or changed."""
    deleted: frozenset[str]
    directories: frozenset[str]
    notes: tuple[str, ...]
    """What a reader of the result must know: cuts, skipped files, changes that were not kept."""


async def execute(workspace: Workspace, command: str, seconds: int = DEFAULT_SECONDS) -> str:
    """Run `command` on a copy of the workspace, keep its changes, and say what happened."""
    if not 1 <= seconds <= MAX_SECONDS:
        raise InvalidInput(f"timeout must be from 1 to {MAX_SECONDS} seconds, not {seconds}.")
    files = workspace.files()
    before = Layout(
        files=files,
        executable=frozenset(path for path in files if workspace.executable(path)),
        directories=workspace.directories(),
    )
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    try:
        outcome = await loop.run_in_executor(_commands, _in_turn, HELD.get(None), command, seconds, before, stop)
    except asyncio.CancelledError:
        stop.set()
        raise
    return _tell(command, before, outcome, _keep(workspace, before, outcome))


def _in_turn(lease: Lease | None, command: str, seconds: float, before: Layout, stop: threading.Event) -> Outcome:
    """Run it once a thread is free, unless its run was stopped or lost meanwhile."""
    if lease is not None and (lease.over or lease.stopped is not None):
        raise LostLease(f"The run was {lease.stopped or 'lost'} while the command waited for its turn. It did not run.")
    return run_command(command, seconds, before, stop)


def run_command(command: str, seconds: float, before: Layout, stop: threading.Event) -> Outcome:
    """Fill a private directory, run `command` in it, and read back what it left."""
    if "\0" in command:
        raise InvalidInput("The command contains a NUL character.")
    with private_directory() as place:
        fill(place, before)
        exit_code, output = _run(command, seconds, place, stop)
        left = read_back(place)
    try:
        written, deleted = left.compare(before)
        directories = frozenset(left.directories)
    except BanksmanError as error:
        left.notes.append(f"None of the command's changes to files were kept: {error}")
        written, deleted, directories = {}, frozenset[str](), before.directories
    return Outcome(exit_code, output, written, deleted, directories, tuple(left.notes))


def _keep(workspace: Workspace, before: Layout, outcome: Outcome) -> list[str]:
    """Bring the command's changes into the workspace, and list them."""
    told: list[str] = []
    for path in sorted(outcome.deleted):
        with suppress(FileNotFoundError):
            workspace.delete(path)
            told.append(f"deleted {path}")
    # Deepest first. A directory that could not be read back still holds its files, and stays.
    for path in sorted(before.directories - outcome.directories, reverse=True):
        if not any(file.startswith(path + "/") for file in workspace.files()):
            with suppress(FileNotFoundError):
                workspace.delete(path)
    for path, (body, is_executable) in sorted(outcome.written.items()):
        workspace.write(path, body, executable=is_executable)
        told.append(f"{'changed' if path in before.files else 'created'} {path}")
    for path in sorted(outcome.directories):
        workspace.add_directory(path)
    return told


def _tell(command: str, before: Layout, outcome: Outcome, changes: list[str]) -> str:
    """The result as the model reads it."""
    lines = [outcome.output.rstrip("\n")] if outcome.output.strip() else []
    if outcome.exit_code != 0:
        lines.insert(0, f"Command failed (exit code {outcome.exit_code}):")
        named = next((path for path in before.files if f" {path}" in f" {command}"), None)
        if named is not None:
            lines.append(f"[The command starts in the workspace's root: {named} is {named[1:]} there.]")
    lines.extend(f"[{note}]" for note in outcome.notes)
    if changes:
        shown = ", ".join(changes[:20])
        more = f" and {len(changes) - 20} more" if len(changes) > 20 else ""
        lines.append(f"[Workspace: {shown}{more}]")
    return "\n".join(lines) or "The command succeeded and printed nothing."


def _run(command: str, seconds: float, place: Place, stop: threading.Event) -> tuple[int, str]:
    """The exit code and what was printed; every process of the command is gone afterwards."""
    root, user = place.root, place.user
    process = subprocess.Popen(
        ["/bin/sh", "-c", _WRAPPER, "sh", command],
        cwd=root,
        env={"PATH": _PATH, "HOME": str(root), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0o077,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )
    output = _Output()
    deadline = time.monotonic() + seconds
    note = ""
    with _watch.over(process.pid), process, selectors.DefaultSelector() as selector:
        selector.register(cast("IO[bytes]", process.stdout), selectors.EVENT_READ)
        try:
            while process.poll() is None:
                if stop.is_set():
                    note = "\n[The run was stopped, and the command with it.]"
                    break
                if time.monotonic() >= deadline:
                    note = f"\n[The command was stopped after {seconds:g} seconds.]"
                    break
                _take(selector, output, wait=0.05 if selector.get_map() else 0.002)
        finally:
            _kill(process, place)
        # What was printed and not yet read; a stray process that holds the pipe cannot hold us.
        for _ in range(64):
            if not _take(selector, output, wait=0):
                break
    code = TIMED_OUT if note else process.returncode
    # A shell reports a child killed by signal N as 128 + N; say the same of the shell itself.
    return (128 - code if code < 0 else code), output.text() + note


def _take(selector: selectors.BaseSelector, output: _Output, *, wait: float) -> bool:
    """Read what has been printed, waiting at most `wait` seconds; whether there was anything."""
    events = selector.select(wait)
    for key, _ in events:
        chunk = os.read(key.fd, 65_536)
        if chunk:
            output.add(chunk)
        else:
            selector.unregister(key.fileobj)
    return bool(events)


def _kill(process: subprocess.Popen[bytes], place: Place) -> None:
    """End the command's whole session, and on Linux what has left the session too."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if not sys.platform.startswith("linux"):
        return
    # Until none is found: one may have started another while we looked.
    for _ in range(20):
        strays = [
            int(entry.name)
            for entry in os.scandir("/proc")
            if entry.name.isdigit()
            and int(entry.name) not in (os.getpid(), process.pid)
            and _belongs(Path(entry.path), place)
        ]
        for stray in strays:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(stray, signal.SIGKILL)
        if not strays:
            return


def _belongs(process: Path, place: Place) -> bool:
    """Whether a process was started by the command: it has its group, or its HOME at least."""
    try:
        if place.user is None:
            home = b"HOME=" + os.fsencode(place.root)
            return home in (process / "environ").read_bytes().split(b"\0")
        status = (process / "status").read_text()
    except OSError:
        return False
    return f"\nGid:\t{place.user.gid}\t" in status and "\nState:\tZ" not in status


@dataclass
class _Output:
    """The beginning and the end of what a command printed, and how much lies between."""

    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    total: int = 0

    def add(self, chunk: bytes) -> None:
        half = MAX_OUTPUT_BYTES // 2
        self.total += len(chunk)
        room = half - len(self.head)
        self.head += chunk[:room]
        self.tail += chunk[room:]
        if len(self.tail) > half:
            del self.tail[:-half]

    def text(self) -> str:
        cut = self.total - len(self.head) - len(self.tail)
        if not cut:
            return bytes(self.head + self.tail).decode(errors="replace")
        return (
            f"{self.head.decode(errors='replace')}\n[… {cut:,} of {self.total:,} bytes cut here …]\n"
            f"{self.tail.decode(errors='replace')}"
        )
