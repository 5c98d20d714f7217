"""An operating system's process, known by more than its number.

A number is used again, so a file that says "PostgreSQL is 4711" may after a crash point at a
stranger's editor. A process is therefore its number and the moment it was born; nothing here
signals a process whose birth does not match.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Process:
    """A process and the moment it was born, in the system's own spelling."""

    pid: int
    born: str


def identify(pid: int) -> Process | None:
    """The living process behind a number; None for no process and for one that only waits to be reaped."""
    if _PROC:
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if state in "ZX" else Process(pid, f"{boot} {rest[18]}")
    state, _, born = _ps(pid, "stat=,lstart=").partition(" ")
    return Process(pid, " ".join(born.split())) if state and state[0] != "Z" else None


def alive(process: Process) -> bool:
    """Whether exactly this process still lives."""
    return identify(process.pid) == process


def command_line(pid: int) -> str:
    """The command a process was started with; empty when there is no such process."""
    if not _PROC:
        return _ps(pid, "command=")
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def stop(process: Process, ask: signal.Signals, *, within: float) -> None:
    """Asks a process that is not our child to end, waits, and kills it when time is up."""
    for sign, seconds in ((ask, within), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        try:
            if alive(process):
                os.kill(process.pid, sign)
        except ProcessLookupError:
            return
        while alive(process):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def _ps(pid: int, columns: str) -> str:
    command = ["ps", "-ww", "-o", columns, "-p", str(pid)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    ).stdout.strip()
