"""The wire on a real Valkey: what it writes is Celery's, what it reads is its own, and it never piles up."""

from __future__ import annotations

import json
import logging
import pickle
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, cast
from uuid import uuid4

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from banksman import wire as hints
from banksman.embedded import ports
from banksman.errors import InvalidInput
from banksman.ids import NoticeId, RunId
from banksman.wire import Hint, Wire

Forge = Callable[[dict[str, Any]], object]


def a_hint(task: str = "start_run") -> Hint:
    return Hint(task, [uuid4().hex, 0], datetime.now(UTC) + timedelta(seconds=30))


@pytest.fixture
def queue(broker: str) -> Iterator[Any]:
    with redis.Redis.from_url(broker) as client:
        yield client


def test_a_stock_celery_worker_understands_our_messages(broker: str, wire: Wire) -> None:
    stock = Celery("stock", broker=broker, set_as_current=False)
    found: list[tuple[object, ...]] = []
    both = Event()

    @stock.task(name="start_run", shared=False)
    def start_run(*arguments: object) -> None:
        found.append(arguments)
        if len(found) == 2:
            both.set()

    run_ids = [RunId(uuid4()), RunId(uuid4())]
    wire.run(*((run_id, 0) for run_id in run_ids))
    logging.getLogger("celery").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with start_worker(stock, pool="solo", perform_ping_check=False, queues=["runs.start"]):
            assert both.wait(20)

    assert found == [(run_id.hex, 0) for run_id in run_ids]
    assert start_run.name == "start_run"


def test_wake_ups_are_read_in_the_order_in_which_they_were_sent(wire: Wire, queue: Any) -> None:
    first, second, later = (RunId(uuid4()) for _ in range(3))
    notices = [NoticeId(uuid4()) for _ in range(250)]

    wire.run((first, 0), (later, 3), (second, 0))
    wire.deliver(notices)
    wire.deliver([])

    def said(name: str) -> list[tuple[str, Any]]:
        raws: list[bytes] = queue.lrange(name, 0, -1)
        found = [hints.read(name, raw) for raw in reversed(raws)]
        return [(hint.task, hint.arguments) for hint in found]

    assert said("runs.start") == [("start_run", [first.hex, 0]), ("start_run", [second.hex, 0])]
    assert said("runs.resume") == [("resume_run", [later.hex, 3])]
    handfuls: list[list[str]] = [arguments for _, [arguments] in said("approvals")]
    assert [len(handful) for handful in handfuls] == [100, 100, 50]
    assert [name for handful in handfuls for name in handful] == [notice.hex for notice in notices]


def test_wake_ups_that_nobody_takes_leave_a_bounded_queue(
    wire: Wire, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("banksman.wire.time.monotonic", lambda: clock[0])
    for _ in range(1200):
        wire.run((RunId(uuid4()), 0))
        clock[0] += 3  # longer than any rest
    wire.run(*((RunId(uuid4()), 1) for _ in range(5000)))

    assert queue.llen("runs.start") == queue.llen("runs.resume") == 1000

    # Somebody takes them away: the next wake-up goes out again.
    queue.delete("runs.start")
    clock[0] += 3
    wire.run((RunId(uuid4()), 0))
    assert queue.llen("runs.start") == 1


def test_a_full_queue_does_not_keep_another_from_being_filled(wire: Wire, queue: Any) -> None:
    wire.run(*((RunId(uuid4()), 0) for _ in range(1000)))

    wire.run((RunId(uuid4()), 0), (RunId(uuid4()), 1))

    assert (queue.llen("runs.start"), queue.llen("runs.resume")) == (1000, 1)


def test_a_broker_that_is_away_is_asked_once_and_then_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Wire(f"redis://127.0.0.1:{ports.free()}/0", expires=30)
    asked: list[str] = []
    client = cast("Any", away)._redis
    real = client.execute_command

    def execute(*words: Any, **options: Any) -> Any:
        asked.append(words[0])
        return real(*words, **options)

    monkeypatch.setattr(client, "execute_command", execute)
    for _ in range(5):
        away.run((RunId(uuid4()), 0))
        away.changed(run=RunId(uuid4()))
        away.deliver([NoticeId(uuid4())])
    away.close()

    assert asked == ["LPUSH"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("rediss://worker:pw@broker.example.org:6380/0", redis.SSLConnection),
        ("redis://worker:pw@broker.example.org/0", redis.Connection),
        ("unix://worker:pw@/run/valkey.sock", redis.UnixDomainSocketConnection),
    ],
)
def test_every_url_that_redis_py_takes_is_taken(url: str, kind: type[object]) -> None:
    publisher = Wire(url, expires=30)
    pool = cast("Any", publisher)._redis.connection_pool

    assert pool.connection_class is kind
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("worker", "pw")


def test_what_is_written_is_read_and_is_stale_after_its_time() -> None:
    hint = a_hint()
    over = Hint(hint.task, hint.arguments, datetime.now(UTC) - timedelta(seconds=1))

    assert hints.read(hints.START, hints.message(hint).encode()) == hint
    assert not hint.stale
    assert hints.read(hints.START, hints.message(over).encode()).stale


def _with(**parts: Any) -> Forge:
    """Changes of a good message: `headers__eta=…` sets a header, `gone=…` takes a part away."""

    def forge(good: dict[str, Any]) -> object:
        for path, value in parts.items():
            *folders, name = path.split("__")
            place = good
            for folder in folders:
                place = place[folder]
            place[name.replace("_", "-") if name.startswith("content") else name] = value
        return good

    return forge


def _body(*parts: Any) -> Forge:
    return _with(body=json.dumps(parts))


def _without(*path: str) -> Forge:
    def forge(good: dict[str, Any]) -> object:
        place = good
        for folder in path[:-1]:
            place = place[folder]
        del place[path[-1]]
        return good

    return forge


RUN = "0" * 32
NONE: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
AFTER: dict[str, Any] = {"task": "resume_run", "args": [RUN, 1], "kwargs": {}, "options": {}}
FORGED: dict[str, Forge] = {
    "callbacks": _body([RUN, 0], {}, NONE | {"callbacks": [AFTER]}),
    "errbacks": _body([RUN, 0], {}, NONE | {"errbacks": [AFTER]}),
    "a chain": _body([RUN, 0], {}, NONE | {"chain": [AFTER]}),
    "a chord": _body([RUN, 0], {}, NONE | {"chord": AFTER}),
    "keyword arguments": _body([RUN, 0], {"approved": True}, NONE),
    "no embedded part": _body([RUN, 0], {}),
    "more than a body": _body([RUN, 0], {}, NONE, 1),
    "arguments that are no list": _body({"run": RUN}, {}, NONE),
    "an empty body": _with(body=""),
    "a body of null": _with(body="null"),
    "a body in base64": _with(body=b64encode(json.dumps([[RUN, 0], {}, NONE]).encode()).decode()),
    "a body of kombu's own types": _with(body={"__type__": "bytes", "__value__": "AAAA"}),
    "pickle": _with(content_type="application/x-python-serialize", body=b64encode(pickle.dumps([RUN])).decode()),
    "yaml": _with(content_type="application/x-yaml"),
    "no content type": _without("content-type"),
    "another content encoding": _with(content_encoding="rot13"),
    "an unknown content encoding": _with(content_encoding="no-such-codec"),
    "a body encoding": _with(properties__body_encoding="base64"),
    "a compression": _with(headers__compression="application/x-gzip"),
    "an ETA": _with(headers__eta="2000-01-01T00:00:00+00:00"),
    "an ETA that is no time": _with(headers__eta=[1]),
    "a time limit": _with(headers__timelimit=[1, 1]),
    "a group": _with(headers__group=RUN),
    "a parent": _with(headers__parent_id=RUN),
    "retries": _with(headers__retries=3),
    "a shadow name": _with(headers__shadow="\x1b[31mresume_run"),
    "a stamp": _with(headers__stamped_headers=["x"], headers__stamps={"x": "y"}),
    "a reply queue": _with(properties__reply_to="elsewhere"),
    "a delivery tag of another": _with(properties__delivery_tag="../../etc/passwd"),
    "a delivery tag that is a list": _with(properties__delivery_tag=[]),
    "a route elsewhere": _with(properties__delivery_info={"exchange": "celery.pidbox", "routing_key": ""}),
    "no delivery info": _without("properties", "delivery_info"),
    "no delivery tag": _without("properties", "delivery_tag"),
    "no properties": _without("properties"),
    "no headers": _without("headers"),
    "headers of null": _with(headers=None),
    "headers that are a list": _with(headers=[]),
    "no task": _without("headers", "task"),
    "a task that is no name": _with(headers__task=["start_run"]),
    "a task of another queue": _with(headers__task="deliver"),
    "an unknown task": _with(headers__task="celery.backend_cleanup"),
    "an id that is no id": _with(headers__id="x" * 32, headers__root_id="x" * 32),
    "an id that is a number": _with(headers__id=1),
    "no expiry": _without("headers", "expires"),
    "an expiry that is no time": _with(headers__expires="soon"),
    "an expiry of no zone": _with(headers__expires="2999-01-01T00:00:00"),
    "an expiry that is a number": _with(headers__expires=9e99),
    "protocol 1": lambda good: {"body": json.dumps({"task": "start_run", "args": [RUN, 0], "id": RUN})},
    "a part that nobody knows": _with(more="1"),
    "null": lambda good: None,
    "a list": lambda good: [good],
    "a word": lambda good: "start_run",
}
RAW: dict[str, bytes] = {
    "nothing": b"",
    "bytes that are no text": b"\xff\xfe\x00",
    "text that is no JSON": b"{'task': 'start_run'}",
    "half a message": hints.message(a_hint())[:-1].encode(),
    "depth": b"[" * 60_000,
    "a number of 5,000 digits": b"9" * 5000,
    "length": json.dumps(json.loads(hints.message(a_hint())) | {"more": "x" * hints.MOST_BYTES}).encode(),
    "a pickle": pickle.dumps({"task": "start_run"}),
}


def forged() -> dict[str, bytes]:
    """Every message that must be dropped, by what is wrong with it."""
    made = {name: json.dumps(forge(json.loads(hints.message(a_hint())))).encode() for name, forge in FORGED.items()}
    return made | RAW


@pytest.mark.parametrize(("raw"), [pytest.param(raw, id=name) for name, raw in forged().items()])
def test_a_message_that_brings_anything_but_ids_is_not_read(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        hints.read(hints.START, raw)


def test_no_depth_of_nesting_gets_past_or_ends_the_reader() -> None:
    good = json.loads(hints.message(a_hint()))
    for depth in range(3, 1200, 3):
        nested = "[" * depth + "]" * depth
        forged = good | {"body": f"[{nested}, {{}}, {json.dumps(json.loads(good['body'])[2])}]"}
        with pytest.raises(InvalidInput):
            hints.read(hints.START, json.dumps(forged).encode())
