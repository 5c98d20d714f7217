"""Keeps a set of processes running, shows what they say, and ends with none of them left.

One thread, one loop: it reads the children's output, notices deaths and signals through one
selector, and starts again what died, waiting a little longer each time. Children are started in
groups; groups are stopped in reverse order, so the services go before the servers that they use.

No orphan may survive, even when the supervisor itself is killed. Three things see to that, each
where the one before cannot: a service of ours holds a pipe whose other end only the supervisor has
(`child.py`); on Linux the kernel signals a server when its supervisor is gone; and what is started
is written down with its moment of birth, so that the next start finds and stops a left-over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

from banksman import files
from banksman.embedded import processes
from banksman.embedded.service import Service, ServiceStopped, spawn

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_LONG_LIFE = 30.0
# Colours pass; anything else that moves a cursor, rings a bell or retitles a window does not.
_UNSAFE = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f\x80-\x9f]")


class Supervisor:
    """Holds the children's lifetime: whatever it started has ended when its `with` block has."""

    def __init__(
        self,
        *,
        record: Path | None = None,
        on_change: Callable[[str, int], None] | None = None,
        out: IO[str] | None = None,
    ) -> None:
        self.stopping = False
        self._record = record
        self._on_change = on_change
        self._out = out or sys.stdout
        self._colour = "NO_COLOR" not in os.environ and ("FORCE_COLOR" in os.environ or self._out.isatty())
        self._width = 8
        self._settled = False
        self._hurry = False
        self._groups: list[list[_Child]] = []
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._former_fd = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[sign] = signal.signal(sign, self._on_signal)
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _wake_up)
        try:
            _stop_left_overs(self._record, self.say)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._restore()

    def start(self, *services: Service) -> None:
        """Starts a group of services; later groups are stopped first."""
        group: list[_Child] = []
        self._groups.append(group)
        for service in services:
            self._width = max(self._width, len(service.name))
            child = _Child(service, _COLOURS[len(self._children()) % len(_COLOURS)])
            group.append(child)
            self._spawn(child)

    def pids(self) -> dict[str, int]:
        """Name → process id of what runs now, in the order of starting."""
        return {c.service.name: c.popen.pid for c in self._children() if c.popen is not None}

    def watch(self, until: Callable[[], bool], *, within: float) -> bool:
        """Waits for a condition; False when a stop was asked for or time ran out first."""
        deadline = time.monotonic() + within
        while not self.stopping and time.monotonic() < deadline:
            if until():
                return True
            self._turn(0.02)
        return False

    def settled(self) -> None:
        """Starting up → started: from now on a death is repaired, not an error."""
        self._settled = True

    def run(self) -> None:
        """Keeps everything running until SIGINT, SIGTERM or SIGHUP; what dies is started again."""
        self.settled()
        while not self.stopping:
            self._turn(0.5)

    def stop(self) -> None:
        """Stops every group, the last first; kills what does not stop in time. A second Ctrl-C kills at once."""
        self.stopping = True
        for group in reversed(self._groups):
            self._stop_group(group)
        self._groups.clear()
        if self._record is not None:
            self._record.unlink(missing_ok=True)

    def say(self, text: str, *, colour: int = 1) -> None:
        """A line of the supervisor's own."""
        self._print("banksman", colour, text)

    def _children(self) -> list[_Child]:
        return [child for group in self._groups for child in group]

    def _spawn(self, child: _Child) -> None:
        child.due = None
        popen = child.popen = spawn(child.service, stdout=subprocess.PIPE)
        child.since = time.monotonic()
        self._write_record()
        if popen.stdout is not None:
            os.set_blocking(popen.stdout.fileno(), False)
            self._selector.register(popen.stdout, selectors.EVENT_READ, child)
        if self._on_change is not None:
            self._on_change(child.service.name, popen.pid)

    def _turn(self, timeout: float) -> None:
        """One round: show output, notice deaths, start again what is due."""
        due = [c.due - time.monotonic() for c in self._children() if c.due is not None]
        for key, _ in self._selector.select(max(0.0, min([timeout, *due]))):
            if isinstance(key.data, _Child):
                self._read(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
        for child in self._children():
            if child.popen is not None and child.popen.poll() is not None:
                self._bury(child, child.popen.returncode)
            elif child.due is not None and child.due <= time.monotonic() and not self.stopping:
                self._spawn(child)

    def _bury(self, child: _Child, code: int) -> None:
        """Running → dead: due to be started again, an error while starting up, expected while stopping."""
        self._read(child)
        lived = time.monotonic() - child.since
        self._close(child)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if self.stopping:
            if code not in (0, -child.service.stop_signal):
                self.say(f"{child.service.name} {how} while stopping", colour=33)
            return
        if not self._settled:
            tail = "\n".join(f"    {line}" for line in child.tail)
            raise ServiceStopped(f"{child.service.name} {how} while starting. Its last words:\n{tail}")
        child.wait = 0.2 if lived > _LONG_LIFE else min(child.wait * 2, 10.0)
        child.due = time.monotonic() + child.wait
        self.say(f"{child.service.name} {how}; starting it again in {child.wait:.1f} s", colour=31)

    def _close(self, child: _Child) -> None:
        popen, child.popen = child.popen, None
        if popen is None:
            return
        self._close_output(popen)
        if popen.stdin is not None:
            popen.stdin.close()
        if child.partial:
            self._line(child, child.partial)
            child.partial = b""

    def _close_output(self, popen: subprocess.Popen[bytes]) -> None:
        """A child may close its output and live on; its death is noticed elsewhere."""
        if popen.stdout is not None:
            self._selector.unregister(popen.stdout)
            popen.stdout.close()
            popen.stdout = None

    def _stop_group(self, group: list[_Child]) -> None:
        for child in group:
            child.due = None
            if child.popen is not None:
                with contextlib.suppress(ProcessLookupError):
                    child.popen.send_signal(child.service.stop_signal)
        began = time.monotonic()
        while left := [child for child in group if child.popen is not None]:
            for child in left:
                late = time.monotonic() - began > child.service.stop_within
                if (late or self._hurry) and child.popen is not None:
                    self.say(f"{child.service.name} did not stop in time; killing it", colour=31)
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(child.popen.pid, signal.SIGKILL)
                    child.popen.wait()
            self._turn(0.1)

    def _read(self, child: _Child) -> None:
        """Shows the whole lines that a child has written by now."""
        if child.popen is None or child.popen.stdout is None:
            return
        for _ in range(64):
            try:
                chunk = os.read(child.popen.stdout.fileno(), 65536)
            except BlockingIOError:
                return
            if not chunk:
                self._close_output(child.popen)
                return
            *lines, child.partial = (child.partial + chunk).split(b"\n")
            for line in lines:
                self._line(child, line)
            if len(child.partial) > 65536:
                self._line(child, child.partial)
                child.partial = b""

    def _line(self, child: _Child, raw: bytes) -> None:
        text = _UNSAFE.sub("�", raw.decode("utf-8", "replace").rstrip("\r"))
        child.tail.append(text)
        self._print(child.service.name, child.colour, text)

    def _print(self, name: str, colour: int, text: str) -> None:
        prefix = f"{name:<{self._width}} |"
        if self._colour:
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        # Nobody may be reading any more (`banksman up | head`); that is no reason to stop.
        with contextlib.suppress(OSError, ValueError):
            self._out.write(f"{prefix} {text}\n")
            self._out.flush()

    def _write_record(self) -> None:
        """Who runs now, for the next start to check."""
        if self._record is None:
            return
        found = [(child, processes.identify(child.popen.pid)) for child in self._children() if child.popen is not None]
        files.write_private(
            self._record,
            json.dumps(
                {
                    c.service.name: {"pid": p.pid, "born": p.born, "stop": c.service.stop_signal.name}
                    for c, p in found
                    if p is not None
                }
            ),
        )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._hurry = self._hurry or (self.stopping and number == signal.SIGINT)
        self.stopping = True

    def _restore(self) -> None:
        signal.set_wakeup_fd(self._former_fd)
        for sign, handler in self._handlers.items():
            signal.signal(sign, handler)
        self._selector.close()
        self._wake.close()
        self._woken.close()


@dataclass(slots=True, eq=False)
class _Child:
    service: Service
    colour: int
    popen: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    due: float | None = None
    wait: float = 0.1
    partial: bytes = b""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=20))


def _wake_up(_number: int, _frame: FrameType | None) -> None:
    """A child's death only needs to end the wait; the loop then looks for itself."""


def _stop_left_overs(record: Path | None, say: Callable[[str], None]) -> None:
    """Ends what a killed supervisor left running, by its record of numbers and births."""
    if record is None or not record.exists():
        return
    try:
        entries: dict[str, dict[str, Any]] = json.loads(record.read_text())
    except ValueError:
        entries = {}
    for name, entry in reversed(entries.items()):
        process = processes.Process(entry["pid"], entry["born"])
        if processes.alive(process):
            say(f"{name} ({process.pid}) is left over from a supervisor that was killed; stopping it")
            processes.stop(process, signal.Signals[entry["stop"]], within=10.0)
    record.unlink(missing_ok=True)
