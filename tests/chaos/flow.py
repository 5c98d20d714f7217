"""Hundreds of runs that flow while things break: a program that submits, people who decide, and who counts afterwards.

The people decide over the real API, and settle an unknown outcome by the fake external system's log alone: *happened*
if the line is there, *rerun* if it is not. Before they say rerun they wait out the longest time that a worker may be
frozen: a log is conclusive only once nobody can write into it any more. The checker reads that log and the API, and
nothing of ours.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import ChainMap, Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

import httpx

from tests.chaos import agents
from tests.chaos.site import Effect, Mark, Site
from tests.journeys.outsider import Outsider, Shape

OVER = {"finished", "failed", "cancelled"}
_CLAIMS = {"run.started": "a first segment", "run.resumed": "a resumed run"}
_SETTLED = {"approve": "approved", "deny": "denied", "happened": "answered", "rerun": "approved"}


@dataclass(frozen=True, slots=True)
class Order:
    """One run, and what people will say to its calls."""

    word: str
    agent: str
    denied: frozenset[str] = frozenset()
    amount: int = agents.PRICE
    """What a person lets be paid."""

    def expected(self) -> dict[str, int]:
        """How often each tool must have taken effect in the end."""
        return {tool: 0 if tool in self.denied else 1 for tool in agents.TOOLS[self.agent]}


def orders(count: int, *, seed: int, prefix: str) -> list[Order]:
    """A mixture: two gated tools in sequence and in one turn, an ungated one, an idempotent one, denials, edits."""
    dice = random.Random(seed)
    made: list[Order] = []
    for number in range(count):
        agent = ("sequence", "turn", "bookkeeper", "payer", "stamper")[number % 5]
        gated = [tool for tool in agents.TOOLS[agent] if tool not in agents.UNGATED]
        denied = frozenset(tool for tool in gated if dice.random() < 0.12)
        amount = dice.randrange(1, 100) if "pay" in gated and dice.random() < 0.25 else agents.PRICE
        made.append(Order(f"{prefix}-{number:04d}", agent, denied, amount))
    return made


class _Looping:
    """A thread that does something again and again, and outlives whatever is away."""

    def __init__(self, name: str, pause: float) -> None:
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self.broke: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(40)

    def must_go_on(self) -> None:
        if self.broke is not None:
            raise self.broke

    def _loop(self) -> None:
        try:
            while not self._over.wait(self._pause):
                with suppress(httpx.TransportError, _Away):
                    self.turn()
        except BaseException as error:  # noqa: BLE001  raised again by `must_go_on`
            self.broke = error

    def turn(self) -> None:
        raise NotImplementedError


class _Away(Exception):
    """The gateway answers that it cannot."""


def _told(answer: httpx.Response, good: int = 200) -> Any:
    if answer.status_code >= 500:
        raise _Away(answer.text)
    assert answer.status_code == good, f"{answer.request.url}: {answer.status_code} {answer.text[:1000]}"
    return answer.json()


class Program(_Looping):
    """Submits orders at a pace, each under its own Idempotency-Key, and follows the runs to their ends."""

    def __init__(self, client: Outsider, *, pace: float, most: int, supply: Iterable[Order]) -> None:
        super().__init__("program", 0.25)
        self._client, self._pace, self._most = client, pace, most
        self._supply = iter(supply)
        self._next: Order | None = None
        self._began = time.monotonic()
        self.orders: dict[str, Order] = {}
        """What was accepted."""
        self.runs: dict[str, str] = {}
        """Word → run."""
        self.ended: dict[str, Shape] = {}
        """Word → the run as it was when it was over."""
        self.retried = 0
        self.is_done = False
        """Whether everything was submitted."""

    def turn(self) -> None:
        while not self.is_done and len(self.runs) - len(self.ended) < self._most and self._is_time():
            self._next = self._next or next(self._supply, None)
            if self._next is None:
                self.is_done = True
                break
            order = self._next
            body = {"agent": order.agent, "prompt": order.word}
            answer = self._client.http.post("/v1/runs", json=body, headers={"Idempotency-Key": order.word})
            run = _told(answer, 201)
            self.orders[order.word], self.runs[order.word] = order, run["id"]
            self._next = None
        self._follow()

    def _is_time(self) -> bool:
        return len(self.runs) < self._pace * (time.monotonic() - self._began)

    def finish(self) -> None:
        """Submit nothing more."""
        self.is_done = True

    def _follow(self) -> None:
        """Newest first, until every run that is not over has been seen."""
        waiting = {run: word for word, run in self.runs.items() if word not in self.ended}
        cursor: str | None = None
        while waiting:
            more = {} if cursor is None else {"cursor": cursor}
            page = _told(self._client.http.get("/v1/runs", params={"limit": 200, **more}))
            for run in page["items"]:
                word = waiting.pop(run["id"], None)
                if word is not None and run["status"] in OVER:
                    self.ended[word] = run
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert not waiting, f"accepted, and not in the list of runs: {waiting}"

    def is_over(self) -> bool:
        """Whether everything was submitted and has ended."""
        return self.is_done and len(self.ended) == len(self.runs)

    def open(self) -> dict[str, str]:
        """Word → run of everything that is not over."""
        return {word: run for word, run in self.runs.items() if word not in self.ended}


class Person(_Looping):
    """Decides every other request: approvals as the order says, unknown outcomes by the effect log."""

    def __init__(
        self, client: Outsider, site: Site, known: Mapping[str, Order], *, share: int, of: int, patience: float
    ) -> None:
        super().__init__("person", 0.15)
        self._client, self._site, self._known = client, site, known
        self._share, self._of, self._patience = share, of, patience
        self._first_seen: dict[str, float] = {}
        self.sent: dict[tuple[str, str], float] = {}
        """(word, tool) → when its approval was first sent."""
        self.acknowledged: dict[str, str] = {}
        """Request → the verdict that the gateway said yes to."""
        self.outcomes: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()

    def turn(self) -> None:
        page = _told(self._client.http.get("/v1/requests", params={"state": "open", "limit": 200}))
        for request in page["items"]:
            if int(request["id"][-2:], 16) % self._of == self._share:
                self._decide(request)
        if self._share == 0:
            self._retry_the_stuck()

    def _decide(self, request: Shape) -> None:
        word, tool = request["arguments"]["word"], request["tool"]
        order = self._known.get(word)
        if order is None:
            return  # its submission has not been answered yet
        if request["id"] not in self._first_seen:
            self._first_seen[request["id"]] = time.monotonic()
            self.asked[request["kind"]] += 1
        more: dict[str, Any] = {}
        if request["kind"] == "outcome":
            verdict = self._look(request, word, tool)
            if verdict is None:
                return
            if verdict == "happened":
                more["answer"] = f"{tool} of {word} is done; it is in the log."
        elif tool in order.denied:
            verdict, more["reason"] = "deny", "Not this one."
        else:
            verdict = "approve"
            if tool == "pay" and order.amount != agents.PRICE:
                more["arguments"] = {"amount": order.amount}
            self.sent.setdefault((word, tool), time.time())
        answer = self._client.vote(request, verdict, **more)
        if answer.status_code == 409:
            return  # an answer of before was lost, or the world moved on; the next list says
        _told(answer)
        self.acknowledged[request["id"]] = verdict
        if request["kind"] == "outcome":
            self.outcomes[verdict] += 1

    def _look(self, request: Shape, word: str, tool: str) -> str | None:
        """What the log says; None while a frozen worker may yet write into it."""
        if any(effect.tool == tool for effect in self._site.effects(word)):
            return "happened"
        return "rerun" if time.monotonic() - self._first_seen[request["id"]] > self._patience else None

    def _retry_the_stuck(self) -> None:
        """A run that used up its attempts waits for a person, who gives it others."""
        page = _told(self._client.http.get("/v1/runs", params={"status": "stuck"}))
        for run in page["items"]:
            answer = self._client.http.post(f"/v1/runs/{run['id']}/retry")
            if answer.status_code == 200:
                self.retried[run["prompt"]] += 1


def going_on(*everybody: Program | Person) -> bool:
    """True, unless somebody broke off."""
    for looping in everybody:
        looping.must_go_on()
    return True


@dataclass(slots=True)
class Tail:
    """Follows what tools say of themselves, to steer by."""

    site: Site
    _offset: int = 0
    _rest: bytes = b""
    begins: int = 0
    within: dict[int, dict[tuple[str, str], float]] = field(default_factory=dict[int, dict[tuple[str, str], float]])
    """Process → the tools that it is in the middle of."""

    def read(self) -> list[Mark]:
        """What is new."""
        path = self.site.yard / "tools"
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._offset)
            data = self._rest + file.read()
            self._offset = file.tell()
        *lines, self._rest = data.split(b"\n")
        marks = [Mark(**json.loads(line)) for line in lines]
        for mark in marks:
            inside = self.within.setdefault(mark.pid, {})
            if mark.what == "begins":
                self.begins += 1
                inside[mark.word, mark.tool] = mark.at
            else:
                inside.pop((mark.word, mark.tool), None)
        return marks

    def count(self) -> int:
        """How many tools have begun so far."""
        self.read()
        return self.begins

    def next_begin(self, pids: Collection[int], *, within: float) -> int | None:
        """The process in which a tool begins next."""
        self.read()
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for mark in self.read():
                if mark.what == "begins" and mark.pid in pids:
                    return mark.pid
            time.sleep(0.002)
        return None

    def caught(self, pid: int) -> list[str]:
        """The words of the runs that a process is in a tool for."""
        self.read()
        return [word for word, _ in self.within.get(pid, {})]


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that was done to a worker, and the runs that it held in a tool then."""

    kind: str
    at: float
    words: Sequence[str]


def recoveries(client: Outsider, program: Program, hits: Iterable[Hit]) -> dict[str, list[float]]:
    """Seconds from each hit to the next claim of each run that it caught, by the runs' own timelines.

    First segments are told apart: they wait until every run that was resumed has been served.
    """
    found: dict[str, list[float]] = {}
    for hit in hits:
        for word in hit.words:
            if word not in program.runs:
                continue
            page = _told(client.http.get(f"/v1/runs/{program.runs[word]}/timeline"))
            for item in page["items"]:
                after = datetime.fromisoformat(item["at"]).timestamp() - hit.at
                if item["what"] in _CLAIMS and after > 0:
                    found.setdefault(f"{hit.kind}, {_CLAIMS[item['what']]}", []).append(after)
                    break
    return found


def spoken(times: Sequence[float]) -> str:
    """p50 and max of some seconds."""
    return f"p50 {median(times):.1f} s, max {max(times):.1f} s of {len(times)}" if times else "none"


@dataclass(slots=True)
class Verdict:
    """What the checker found."""

    wrong: list[str] = field(default_factory=list[str])
    effects: int = 0
    repeated: int = 0
    """Effects of actions that may happen once, beyond the first."""
    repeated_idempotent: int = 0
    unapproved: int = 0
    lost: int = 0
    states: Counter[str] = field(default_factory=Counter[str])


def check(site: Site, client: Outsider, program: Program, persons: Sequence[Person]) -> Verdict:
    """Every run over, every approved action once, nothing unapproved, every acknowledged vote still standing."""
    found = Verdict()
    effects: dict[tuple[str, str], list[Effect]] = {}
    for effect in site.effects():
        effects.setdefault((effect.word, effect.tool), []).append(effect)
    # Each request has one person, so each approval was first sent by one of them.
    sent = ChainMap(*(person.sent for person in persons))
    for word, order in program.orders.items():
        run = _told(client.http.get(f"/v1/runs/{program.runs[word]}"))
        found.states[run["status"]] += 1
        found.effects += sum(len(effects.get((word, tool), [])) for tool in agents.TOOLS[order.agent])
        name = f"{run['id']} ({order.agent} {word})"
        if run["status"] != "finished":
            found.lost += run["status"] not in {"failed", "cancelled"}
            found.wrong.append(f"{name} is {run['status']}: {run['error']}")
        expected = order.expected()
        for key in effects.keys() - {(word, tool) for tool in expected}:
            if key[0] == word:
                found.wrong.append(f"{name}: {key[1]} ran and was never called")
        for tool, times in expected.items():
            _count(found, name, order, tool, times, effects.get((word, tool), []), sent.get((word, tool)))
    for request_id, verdict in ChainMap(*(person.acknowledged for person in persons)).items():
        state = _told(client.http.get(f"/v1/requests/{request_id}"))["state"]
        if state != _SETTLED[verdict]:
            found.wrong.append(f"{request_id}: {verdict} was acknowledged, and it is {state}")
    return found


def _count(
    found: Verdict, name: str, order: Order, tool: str, times: int, seen: Sequence[Effect], sent: float | None
) -> None:
    if tool in agents.MAY_REPEAT and times:
        found.repeated_idempotent += max(0, len(seen) - 1)
        if not seen:
            found.wrong.append(f"{name}: {tool} never ran")
    elif len(seen) != times:
        found.repeated += max(0, len(seen) - times) if times else 0
        found.unapproved += len(seen) if not times else 0
        found.wrong.append(f"{name}: {tool} took effect {len(seen)} times instead of {times}: {seen}")
    for effect in seen:
        if tool not in agents.UNGATED and (sent is None or effect.at < sent):
            found.unapproved += 1
            found.wrong.append(f"{name}: {tool} took effect before it was approved: {effect}")
        if tool == "pay" and effect.details != {"amount": order.amount}:
            found.unapproved += 1
            found.wrong.append(f"{name}: pay ran with {effect.details}, approved was {order.amount}")
