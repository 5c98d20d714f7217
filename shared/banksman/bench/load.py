"""The load: programs that submit, and reviewers who approve what the list of open requests shows, over HTTP alone.

It uses the standard library's own HTTP client and reads no more than it needs, because on a small machine whatever the
load costs is taken from what is measured.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from banksman.bench.subject import prompt
from banksman.errors import BanksmanError

_PAGE = 100
_ASKED = prompt()
_LOST = ("failed", "stuck", "cancelled")
_SELDOM = 50
"""Of so many looks that find nothing to approve, one asks whether a run is lost."""
_KEPT_SECONDS = 3.0
"""A connection idle for longer may be closed by the gateway at the moment it is used again."""


Tell = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and out of how much."""


class Answered(BanksmanError):
    """Something else than success."""


class Caller:
    """One kept connection with one credential."""

    def __init__(self, url: str, token: str) -> None:
        self._used = time.monotonic()
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One question; anything but success ends the measurement."""
        raw = None if body is None else json.dumps(body)
        if time.monotonic() - self._used > _KEPT_SECONDS:
            self._connection.close()  # the next request opens it again
        try:
            self._connection.request(method, path, raw, self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BanksmanError(f"{method} {path} was not answered: {error or type(error).__name__}") from None
        self._used = time.monotonic()
        if response.status >= 300:
            raise Answered(f"{method} {path} answered {response.status}: {content[:500]!r}")
        return json.loads(content)

    def submit(self, asked: str = _ASKED) -> str:
        return self.ask("POST", "/v1/runs", {"agent": "bench", "prompt": asked})["id"]

    def approve(self, request: Mapping[str, Any]) -> None:
        self.vote(request, "approve")

    def vote(self, request: Mapping[str, Any], verdict: str, **more: str) -> None:
        vote = {"verdict": verdict, "digest": request["digest"], "revision": request["revision"], **more}
        self.ask("POST", f"/v1/requests/{request['id']}/votes", vote)

    def open_requests(self) -> list[dict[str, Any]]:
        return self.ask("GET", f"/v1/requests?state=open&limit={_PAGE}")["items"]

    def runs(self, status: str, limit: int) -> list[dict[str, Any]]:
        """All of them, by pages of `limit`."""
        page = self.ask("GET", f"/v1/runs?status={status}&limit={limit}")
        found: list[dict[str, Any]] = page["items"]
        while cursor := page.get("next_cursor"):
            page = self.ask("GET", f"/v1/runs?status={status}&limit={limit}&cursor={cursor}")
            found += page["items"]
        return found

    def none_lost(self, *more: str) -> None:
        """An error where a run of this system will not finish any more, or is in one more of these states."""
        for status in (*_LOST, *more):
            if found := self.ask("GET", f"/v1/runs?status={status}&limit=1")["items"]:
                raise BanksmanError(
                    f"Run {found[0]['id']} is {status}, so these figures mean nothing: {found[0]['error']}"
                )

    def decision_to_start(self, run_id: str) -> float:
        """Seconds from the decision of a run's request to the start of the approved call, by the audit log."""
        events = self.ask("GET", f"/v1/runs/{run_id}/timeline")["items"]
        decided = next(item for item in events if item["what"] == "request.approved")
        started = next(
            item
            for item in events
            if item["what"] == "execution.started" and item["request_id"] == decided["request_id"]
        )
        return (_time(started) - _time(decided)).total_seconds()


@dataclass(frozen=True, slots=True)
class Way:
    """How to get in."""

    url: str
    submit_key: str
    reviewer: str
    page: int = 200
    """How many runs a list may hold."""

    def program(self) -> Caller:
        return Caller(self.url, self.submit_key)

    def person(self) -> Caller:
        return Caller(self.url, self.reviewer)


def all_at_once(way: Way, runs: int, clients: int, tell: Callable[[int], None]) -> tuple[list[str], float]:
    """Submit `runs` runs by `clients` threads, approve each as it asks, and wait for all; their ids and the seconds."""
    began = time.monotonic()
    left = threading.Semaphore(runs)
    approving = max(1, clients // 2)
    with ThreadPoolExecutor(clients + approving) as pool:
        submitting = [pool.submit(_submit, way, left) for _ in range(clients)]
        _approve_all(way, pool, submitting, clients=approving, runs=runs, tell=tell)
        ids = [run_id for future in submitting for run_id in future.result()]
    with way.program() as program:
        while any(program.ask("GET", f"/v1/runs?status={s}&limit=1")["items"] for s in ("queued", "running")):
            time.sleep(0.02)
    return ids, time.monotonic() - began


def one_by_one(way: Way, runs: int, tell: Callable[[int], None]) -> list[str]:
    """Runs on an otherwise idle system: the next is submitted when the last is over."""
    ids: list[str] = []
    with way.program() as program, way.person() as person:
        for number in range(runs):
            run_id = program.submit()
            looked = 0
            while not (waiting := person.ask("GET", f"/v1/requests?state=open&run_id={run_id}")["items"]):
                looked += 1
                if looked % _SELDOM == 0:
                    person.none_lost()
                time.sleep(0.005)
            # A person takes longer than a program; what the parking still had to do is done by then.
            time.sleep(0.05)
            person.approve(waiting[0])
            while (status := program.ask("GET", f"/v1/runs/{run_id}")["status"]) != "finished":
                if status in _LOST:
                    raise BanksmanError(f"Run {run_id} is {status}, so these figures mean nothing.")
                time.sleep(0.02)
            ids.append(run_id)
            tell(number + 1)
    return ids


def latencies(way: Way, ids: Sequence[str]) -> list[float]:
    """Decision → tool started of each run, in seconds, ascending."""
    with way.program() as program:
        return sorted(program.decision_to_start(run_id) for run_id in ids)


def _submit(way: Way, left: threading.Semaphore) -> list[str]:
    ids: list[str] = []
    with way.program() as program:
        while left.acquire(blocking=False):
            ids.append(program.submit())
    return ids


def _approve_all(
    way: Way,
    pool: ThreadPoolExecutor,
    submitting: Sequence[Future[list[str]]],
    *,
    clients: int,
    runs: int,
    tell: Callable[[int], None],
) -> None:
    """Read the list of open requests, approve what is on it, and read it again, until every run was approved.

    What goes wrong meanwhile is raised here: a run that was not submitted, or is lost, never asks.
    """
    approved = looked = 0
    callers = [way.person() for _ in range(clients)]
    try:
        while approved < runs:
            waiting = callers[0].open_requests()
            if not waiting:
                looked += 1
                for submitted in submitting:
                    if submitted.done():
                        submitted.result()
                if looked % _SELDOM == 0:
                    callers[0].none_lost()
                time.sleep(0.02)
                continue
            shares = [waiting[number::clients] for number in range(clients)]
            for done in [pool.submit(_approve, *pair) for pair in zip(callers, shares, strict=True)]:
                done.result()
            approved += len(waiting)
            tell(approved)
    finally:
        for caller in callers:
            caller.__exit__(None, None, None)


def _approve(caller: Caller, waiting: list[dict[str, Any]]) -> None:
    for request in waiting:
        caller.approve(request)


def _time(item: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(item["at"])
