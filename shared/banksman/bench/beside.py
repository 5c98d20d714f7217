"""Starts the naive script (`banksman.bench.naive`) with a Valkey of its own, to be measured beside Banksman."""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from banksman.bench import naive
from banksman.bench.load import Way
from banksman.embedded import ports, service, valkey
from banksman.embedded.service import Service

_START_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Naive:
    """Where it answers, and the processes of which it consists."""

    way: Way
    pids: Mapping[str, int]


@contextmanager
def running(folder: Path, workers: int) -> Generator[Naive]:
    """The script for the length of the block, its worker with as many processes as asked for."""
    folder.mkdir()
    port, pids = ports.free(), dict[str, int]()

    def works(pid: int) -> bool:
        pids["worker"] = pid
        return b"ready." in (folder / "worker.log").read_bytes()

    def serves(pid: int) -> bool:
        pids["gateway"] = pid
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
            try:
                connection.request("GET", "/v1/runs?status=queued")
                return connection.getresponse().status == 200
            except OSError:
                return False

    with valkey.running(folder / "valkey") as broker:
        environment = {**os.environ, naive.URL: broker.url()}
        worker = ("-m", "celery", "-A", "banksman.bench.naive", "worker", "-c", str(workers), "-l", "info")
        web = ("-m", "uvicorn", "banksman.bench.naive:web", "--port", str(port), "--no-access-log")
        with (
            service.running(
                _python("the naive worker", worker, environment, folder),
                ready=works,
                log=folder / "worker.log",
                within=_START_WITHIN,
            ),
            service.running(
                _python("the naive gateway", web, environment, folder),
                ready=serves,
                log=folder / "gateway.log",
                within=_START_WITHIN,
            ),
        ):
            yield Naive(Way(f"http://127.0.0.1:{port}", "", ""), pids)


def _python(name: str, arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path) -> Service:
    return Service(name=name, argv=[sys.executable, *arguments], env=environment, cwd=folder)
