"""Starts the naive script (`banksman.bench.naive`) with a Valkey of its own, to be measured beside Banksman."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from banksman.bench import naive
from banksman.bench.load import Way
from banksman.embedded import ports, service, valkey
from banksman.embedded.service import Service

_START_WITHIN = 60.0


class Naive:
    """Where it answers, and the processes of which it consists."""

    def __init__(self, folder: Path, workers: int, environ: Mapping[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self._port = ports.free()
        self._worker_says = ("-m", "celery", "-A", "banksman.bench.naive", "worker", "-c", str(workers), "-l", "info")
        self._worker = ExitStack()
        self.pids = dict[str, int]()
        self.way = Way(f"http://127.0.0.1:{self._port}", "", "", page=1_000_000)

    @contextmanager
    def up(self) -> Generator[Self]:
        """Both processes for the length of the block."""
        web = ("-m", "uvicorn", "banksman.bench.naive:web", "--port", str(self._port), "--no-access-log")
        with self._running("gateway", web, self._serves), self._worker:
            self._start_worker()
            yield self

    def kill(self, pid: int) -> None:
        """End the worker that this process belongs to, with all its processes, and start another in its place."""
        with suppress(ProcessLookupError):
            os.killpg(os.getpgid(pid), signal.SIGKILL)
        self._worker.close()
        self._start_worker()

    def _start_worker(self) -> None:
        log = self._folder / "worker.log"
        self._worker.enter_context(self._running("worker", self._worker_says, lambda: b"ready." in log.read_bytes()))

    def _serves(self) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=1)) as connection:
            try:
                connection.request("GET", "/v1/runs?status=queued")
                return connection.getresponse().status == 200
            except OSError:
                return False

    @contextmanager
    def _running(self, name: str, arguments: Sequence[str], answers: Callable[[], bool]) -> Generator[None]:
        def ready(pid: int) -> bool:
            self.pids[name] = pid
            return answers()

        argv = [sys.executable, *arguments]
        process = Service(name=f"the naive {name}", argv=argv, env=self._environ, cwd=self._folder)
        with service.running(process, ready=ready, log=self._folder / f"{name}.log", within=_START_WITHIN):
            yield


@contextmanager
def running(folder: Path, workers: int, **environ: str) -> Generator[Naive]:
    """The script for the length of the block, its worker with as many processes as asked for."""
    folder.mkdir()
    with (
        valkey.running(folder / "valkey") as broker,
        Naive(folder, workers, {**os.environ, **environ, naive.URL: broker.url()}).up() as found,
    ):
        yield found
