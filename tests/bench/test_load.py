"""The load ends with a sentence when something goes wrong, and its counts are of what it looked at."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banksman.bench import live, load, memory, stack
from banksman.bench.crash import Journey
from banksman.bench.load import Way
from banksman.errors import BanksmanError

Answer = Callable[[str], tuple[int, Any]]


@contextmanager
def gateway(answer: Answer) -> Generator[Way]:
    """Something that answers each question, as `METHOD /path?query`, with a status and JSON."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, said = answer(f"{self.command} {self.path}")
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  its name there

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Way(f"http://127.0.0.1:{server.server_port}", "key", "token")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nothing(*_: object) -> None:
    """Nobody looks."""


def broken(question: str) -> tuple[int, Any]:
    """Takes no run, and asks nobody anything."""
    return (500, {}) if question.startswith("POST") else (200, {"items": []})


def losing(question: str) -> tuple[int, Any]:
    """Takes every run and fails it before it has asked anybody."""
    if question == "POST /v1/runs":
        return 201, {"id": "run_1"}
    failed = [{"id": "run_1", "status": "failed", "error": "No model."}]
    return 200, {"items": failed if "status=failed" in question else []}


@pytest.mark.parametrize(
    ("answer", "said"),
    [(broken, "POST /v1/runs answered 500"), (losing, "Run run_1 is failed, so these figures mean nothing: No model.")],
)
def test_a_run_that_never_asks_ends_the_measurement(answer: Answer, said: str) -> None:
    with gateway(answer) as way:
        with pytest.raises(BanksmanError, match=said):
            load.all_at_once(way, 2, 2, lambda _: None)
        with pytest.raises(BanksmanError, match=said):
            load.one_by_one(way, 1, lambda _: None)


def test_a_run_that_fails_after_its_vote_ends_the_measurement() -> None:
    def answer(question: str) -> tuple[int, Any]:
        match question.partition("?")[0]:
            case "POST /v1/runs":
                return 201, {"id": "run_1"}
            case "GET /v1/requests":
                return 200, {"items": [{"id": "req_1", "digest": "", "revision": 1}]}
            case "GET /v1/runs/run_1":
                return 200, {"status": "stuck"}
            case _:
                return 200, {}

    with gateway(answer) as way, pytest.raises(BanksmanError, match="Run run_1 is stuck"):
        load.one_by_one(way, 1, lambda _: None)


def test_a_gateway_that_is_gone_is_a_sentence() -> None:
    with gateway(broken) as way:
        pass

    with pytest.raises(BanksmanError, match="POST /v1/runs was not answered: "):
        load.one_by_one(way, 1, lambda _: None)


@pytest.mark.parametrize(
    ("wanted", "is_now"), [("waiting", "cancelled"), ("running", "finished"), ("waiting", "stuck")]
)
def test_runs_that_will_never_be_together_are_not_waited_for(wanted: str, is_now: str) -> None:
    states = {wanted: 1, is_now: 1}

    with gateway(lambda _: (200, {"runs": states})) as way, pytest.raises(BanksmanError, match=f"{is_now}': 1"):
        memory.until(way, "bat_1", wanted, 2, lambda _: None)


def test_a_finished_run_without_its_effect_is_counted_whatever_a_lost_one_did(tmp_path: Path) -> None:
    numbers = count()

    def answer(question: str) -> tuple[int, Any]:
        if question == "POST /v1/runs":
            return 201, {"id": f"run_{next(numbers)}"}
        return 200, {"items": [{"id": "run_0"}] if "status=finished" in question else []}

    log = tmp_path / "effects"
    log.write_text("begins A-1 1\nrefunds A-1 1\n")
    with gateway(answer) as way:
        seen = Journey(2, 0, 1, nothing, patience=0.2).of(way, log, lambda _: None)

    assert (seen.finished, seen.lost, seen.undone) == (1, 1, 1)


def test_runs_that_were_begun_again_are_counted_with_those_that_they_were_among(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: Iterator[float] = iter([0, 2, 2, 5])

    def metric(*_: str) -> float:
        return next(readings)

    up = SimpleNamespace(way=None, pids=lambda: {"worker-1": 1}, metric=metric)

    @contextmanager
    def running(*_: object, **__: str) -> Generator[SimpleNamespace]:
        yield up

    monkeypatch.setattr(stack, "running", running)
    monkeypatch.setattr(memory, "submit", nothing)
    monkeypatch.setattr(memory, "until", nothing)

    found = live.at_once(tmp_path, [20, 10], nothing)

    assert {number: seen.repeated for number, seen in found.items()} == {0: 0, 10: 2, 20: 3}
