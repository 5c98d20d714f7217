"""Webhooks out: reads the audit log on for each endpoint, and sends what is due, each event at least once.

A call carries ids, a state and addresses, never content: whoever wants to know more comes and asks. It is tried for a
day, ever more rarely, under one webhook-id. An endpoint that has failed for three days, or says that it is gone, is
disabled, which the log tells; an administrator enables it again, and it is told what it missed.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, timedelta
from threading import Event as Signal
from threading import Semaphore, Thread

from banksman import ids, ledger, logs
from banksman.errors import Unavailable
from banksman.ledger import audit, endpoints
from banksman.ledger import outbox as rows
from banksman.records import Event, Parcel
from banksman_notifier.channels import ChannelError, Way
from banksman_notifier.channels.webhook import Call, Gone
from banksman_notifier.gateway import Gateway, GatewayAway

HANDFUL = 10
_EVENTS = 500
_THREADS = 8
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 4 * 3600.0
_GIVEN_UP_AFTER = timedelta(days=3)
_PURGE_SECONDS = 600.0
_LEASE = timedelta(minutes=5)

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Outbox:
    """What sending needs."""

    pool: ledger.Pool
    gateway: Gateway
    opened: Callable[[], AbstractContextManager[Way[Call]]]


def tail(box: Outbox) -> None:
    """Everything that the log says by now is written down for whoever is to be told."""
    more = True
    while more:
        with ledger.transaction(box.pool) as conn:
            more = rows.tail(conn, limit=_EVENTS)


def purge(box: Outbox, stopping: Signal | None = None) -> None:
    """What has been over for a month is forgotten, a batch in each transaction."""
    more = True
    while more and not (stopping is not None and stopping.is_set()):
        with ledger.transaction(box.pool) as conn:
            more = rows.purge(conn)


def claim(box: Outbox) -> Sequence[Parcel]:
    """A handful that is due, for one endpoint."""
    with ledger.transaction(box.pool) as conn:
        return rows.claim(conn, lease=_LEASE, limit=HANDFUL)


def send(box: Outbox, parcels: Sequence[Parcel], stopping: Signal | None = None) -> None:
    """Send a handful in order. After the first failure the rest waits: it would fail for the same reason."""
    try:
        home = box.gateway.home()
    except GatewayAway:
        _put_back(box, parcels, _delay(1))
        return
    with box.opened() as way:
        for number, parcel in enumerate(parcels):
            if stopping is not None and stopping.is_set():
                _put_back(box, parcels[number:], timedelta())
                return
            try:
                if not parcel.url:
                    raise ChannelError("Its address or secret cannot be read: the log says why.", retryable=True)
                way.send(call(parcel, home))
            except ChannelError as error:
                _failed(box, parcel, error)
                _put_back(box, parcels[number + 1 :], _delay(1))
                return
            with ledger.transaction(box.pool) as conn:
                rows.sent(conn, parcel)


def call(parcel: Parcel, home: str) -> Call:
    """The bytes of a webhook: what happened to what, and where more is to be had."""
    data: dict[str, object] = {"state": parcel.event.partition(".")[2], "links": {}}
    links: dict[str, str] = {}
    for prefix, name, value in (
        ("req", "request", parcel.request_id),
        ("run", "run", parcel.run_id),
        ("bat", "batch", parcel.batch_id),
    ):
        if value is not None:
            shown = ids.show(prefix, value)
            data[f"{name}_id"] = shown
            links[name] = f"{home}/v1/{name}{'es' if name == 'batch' else 's'}/{shown}"
            if name != "batch":
                links[f"{name}_page"] = f"{home}/{name}s/{shown}"
    data["links"] = links
    at = parcel.happened_at.astimezone(UTC).isoformat()
    body = json.dumps({"type": parcel.event, "timestamp": at, "data": data}, separators=(",", ":"))
    return Call(ids.show("dlv", parcel.id), parcel.url, parcel.secrets, body.encode())


def _failed(box: Outbox, parcel: Parcel, error: ChannelError) -> None:
    delay = _delay(parcel.attempts)
    over = not error.retryable or parcel.left < delay
    log.warning("A webhook failed.", endpoint=ids.show("end", parcel.endpoint_id), error=str(error), dead=over)
    with ledger.transaction(box.pool) as conn:
        failing = rows.failed(conn, parcel, error=str(error), delay=None if over else delay)
        because = None
        if isinstance(error, Gone):
            because = str(error)
        elif failing >= _GIVEN_UP_AFTER:
            because = f"It has failed for {failing.days} days: {error}"[:500]
        if because is not None and endpoints.disable(conn, parcel.endpoint_id, because):
            body = {"endpoint": ids.show("end", parcel.endpoint_id)}
            audit.append(conn, Event("notifier", "endpoint.disabled", body=body))
            log.error("An endpoint is disabled.", **body, because=because)


def _put_back(box: Outbox, parcels: Sequence[Parcel], delay: timedelta) -> None:
    if parcels:
        with ledger.transaction(box.pool) as conn:
            rows.put_back(conn, parcels, delay=delay)


def _delay(attempts: int) -> timedelta:
    seconds = min(_FIRST_DELAY * 4 ** (attempts - 1), _LONGEST_DELAY)
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, keeps no secret


class Post:
    """A thread that reads the log, and a few that send, from `start` to `stop`; at most one of them for an endpoint."""

    def __init__(self, box: Outbox, *, every: float) -> None:
        self._box = box
        self._every = every
        self._stopping = Signal()
        self._free = Semaphore(_THREADS)
        self._senders = ThreadPoolExecutor(_THREADS, "webhooks")
        self._thread = Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, within: float) -> None:
        """Begin nothing more. What is under way may end within the time; a claim that it leaves behind runs out."""
        self._stopping.set()
        self._thread.join(within)
        self._senders.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        purge_at = time.monotonic()
        while not self._stopping.wait(self._every):
            try:
                tail(self._box)
                self._send_due()
                if time.monotonic() >= purge_at:
                    purge(self._box, self._stopping)
                    purge_at = time.monotonic() + _PURGE_SECONDS
            except Unavailable as error:
                log.warning("The outbox waits for PostgreSQL.", error=str(error)[:200])
            except Exception:  # the edge of a thread: without it, nobody would be told any more
                log.exception("The outbox failed, and goes on.")

    def _send_due(self) -> None:
        while not self._stopping.is_set() and self._free.acquire(blocking=False):
            parcels: Sequence[Parcel] = ()
            try:
                parcels = claim(self._box)
            finally:
                if not parcels:
                    self._free.release()
            if not parcels:
                return
            self._senders.submit(self._send, parcels)

    def _send(self, parcels: Sequence[Parcel]) -> None:
        try:
            send(self._box, parcels, self._stopping)
        except Unavailable as error:
            log.warning("Webhooks wait for PostgreSQL.", error=str(error)[:200])
        except Exception:  # the edge of a thread
            log.exception("Webhooks failed, and are tried again.")
        finally:
            self._free.release()
