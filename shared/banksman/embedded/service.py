"""One process: how it is started, and how it is made to end with whoever started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from banksman.embedded.account import Account
from banksman.errors import BanksmanError


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """How to start one process, and how to ask it to stop."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    account: Account | None = None
    stdin: bytes = field(default=b"", repr=False)
    lifeline: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 15.0


class ServiceStopped(BanksmanError):
    """A process ended while it was still starting up."""


def spawn(service: Service, *, stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a process that ends with the calling thread's process, in a session of its own."""
    switched = service.account if service.account and service.account.switched else None
    wants_input = bool(service.stdin) or service.lifeline
    try:
        with warnings.catch_warnings():
            # Python warns of `preexec_fn` beside threads; ours makes two system calls and allocates nothing.
            warnings.simplefilter("ignore", DeprecationWarning)
            popen = subprocess.Popen(
                list(service.argv),
                cwd=service.cwd,
                env=dict(service.env),
                stdin=subprocess.PIPE if wants_input else subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if service.lifeline else _end_with_parent(service.stop_signal),  # noqa: PLW1509
                user=switched.uid if switched else None,
                group=switched.gid if switched else None,
                extra_groups=[] if switched else None,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceStopped(f"{service.name} cannot be started ({service.argv[0]}): {error}") from error
    if service.stdin and popen.stdin is not None:
        popen.stdin.write(service.stdin)
        popen.stdin.close()
        popen.stdin = None
    return popen


@contextlib.contextmanager
def running(service: Service, *, ready: Callable[[int], bool], log: Path, within: float) -> Generator[None]:
    """One process for the length of a `with` block, its output in a file: for tests."""
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        popen = spawn(service, stdout=out)
    try:
        deadline = time.monotonic() + within
        while not ready(popen.pid):
            if popen.poll() is not None or time.monotonic() > deadline:
                words = log.read_text(errors="replace")[-2000:]
                raise ServiceStopped(f"{service.name} did not become ready. Its last words:\n{words}")
            time.sleep(0.005)
        yield
    finally:
        if popen.poll() is None:
            popen.send_signal(service.stop_signal)
        try:
            popen.wait(service.stop_within)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
        if popen.stdin is not None:
            popen.stdin.close()


def _end_with_parent(sign: signal.Signals) -> Callable[[], None] | None:
    """What a new process does first on Linux: ask the kernel for a signal when its parent dies."""
    if sys.platform != "linux":
        return None
    libc, parent, set_death_signal = ctypes.CDLL(None), os.getpid(), 1

    def ask() -> None:
        libc.prctl(set_death_signal, int(sign), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask
