"""Starts our real services as processes that can be made to die at one exact line, without a hook in their code.

It imports everything once and forks a process for each line that it reads, so a worker is up in a fraction of a second.
In the forked process the functions that the line names are wrapped before the service's own `__main__` runs: at the
n-th call, before or after it, the process writes the point's name into a file and sends itself SIGKILL (or SIGSTOP,
where it is to stand still instead). Nothing is flushed, closed, rolled back or said goodbye to.

    python -m tests.chaos.launcher      # reads one JSON `Launch` a line, answers each with a process id
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import inspect
import json
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

MODULES = ("banksman_worker.app", "banksman_gateway.app", "banksman_notifier.app", "uvicorn", "tests.chaos.agents")
_NEW_NET = 0x40000000
_DEATH_SIGNAL = 1


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process dies: around the `nth` call of `at`, written `package.module:Class.name`."""

    at: str
    when: Literal["before", "after"]
    nth: int = 1
    sign: int = signal.SIGKILL
    once: str = ""
    """A file: calls count from when it exists."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start."""

    module: str
    env: Mapping[str, str]
    log: str
    point: Point | None = None
    mark: str = ""
    """The file that says that the point was reached."""
    netns: str = ""
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds to put in place of durations that no setting reaches, by `package.module:NAME`."""

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def read(line: str) -> Launch:
    """A launch from the line that carried it."""
    found: dict[str, Any] = json.loads(line)
    point: Any = found.pop("point")
    return Launch(**found, point=None if point is None else Point(**point))


def arm(point: Point, mark: str) -> None:
    """Wrap the function that a point names, so that this process dies there."""
    module, _, path = point.at.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, _dying(getattr(owner, name), point, mark))


def _dying(original: Callable[..., Any], point: Point, mark: str) -> Callable[..., Any]:
    calls, lock = 0, threading.Lock()

    def is_it() -> bool:
        nonlocal calls
        if point.once and not Path(point.once).exists():
            return False
        with lock:
            calls += 1
            return calls == point.nth

    def die() -> None:
        with Path(mark).open("a") as file:
            file.write(f"{point.when} {point.at}\n")
        os.kill(os.getpid(), point.sign)
        time.sleep(1)  # a stop reaches this thread a moment later than the others

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def later(*args: Any, **more: Any) -> Any:
            now = is_it()
            if now and point.when == "before":
                die()
            answer = await original(*args, **more)
            if now:
                die()
            return answer

        return later

    @functools.wraps(original)
    def wrapped(*args: Any, **more: Any) -> Any:
        now = is_it()
        if now and point.when == "before":
            die()
        answer = original(*args, **more)
        if now:
            die()
        return answer

    return wrapped


def become(launch: Launch) -> NoReturn:
    """In the forked process: leave the launcher behind, and be the service."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.setsid()
    if sys.platform == "linux":
        libc.prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    out = os.open(launch.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.closerange(3, 64)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if launch.netns:
        space = os.open(f"/run/netns/{launch.netns}", os.O_RDONLY)
        if libc.setns(space, _NEW_NET) != 0:
            raise OSError(ctypes.get_errno(), f"the network namespace {launch.netns} cannot be entered")
    os.environ.clear()
    os.environ.update(launch.env)
    for name, value in launch.values.items():
        module, _, constant = name.partition(":")
        setattr(importlib.import_module(module), constant, value)
    if launch.point is not None:
        arm(launch.point, launch.mark)
    sys.argv[:] = [launch.module]
    code = 1
    try:
        runpy.run_module(launch.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  the edge of the process: its log says why it ended
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(modules: Sequence[str] = MODULES) -> None:
    """Fork for each line until there are no more; then nobody that was started is left."""
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries the dead
    started: list[int] = []
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            become(read(line))
        started.append(pid)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in started:
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
    os._exit(0)  # taking a second's worth of imports apart helps nobody


if __name__ == "__main__":
    main()
