"""What the moves and the pages of the ledger cost in databases of different sizes, one after the other in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import get_args

import psycopg

from banksman import ids, ledger, signing
from banksman.ids import BatchId, PersonId, RunId
from banksman.ledger import (
    Connection,
    audit,
    batches,
    families,
    gauges,
    inbox,
    lists,
    people,
    progress,
    requests,
    rescue,
    runs,
    silence,
    snapshots,
)
from banksman.ledger import notices as mails
from banksman.ledger.inbox import Wanted
from banksman.links import LinkKeys
from banksman.records import Event, NewRun, Snapshot
from banksman.signing import Signer
from banksman.states import RequestState, RunStatus, Tier, Verdict
from banksman_gateway import decide
from banksman_gateway.decide import Ballot, Pen, Voter
from tests.gateway.scenes import asking, bound

HOUR = timedelta(hours=1)
PEN = Pen(Signer("k1", b"\x01" * 32), LinkKeys.read(f"k1:{signing.base64url(bytes(range(32)))}"), HOUR)


@dataclass(frozen=True, slots=True)
class Place:
    """A database, with what is looked for in it."""

    conn: Connection
    person: PersonId
    batch: BatchId
    """A batch of which every run waits."""


def operations(place: Place) -> Mapping[str, Callable[[], Callable[[], object]]]:
    """Each is made ready first; what comes back is timed."""
    conn = place.conn
    person = people.get(conn, place.person)

    def a_run() -> RunId:
        new = NewRun(RunId(ids.new()), "plain", "Do it.", "carol@example.org")
        runs.create(conn, new, hint=HOUR)
        return new.id

    def submit() -> Callable[[], object]:
        def move() -> None:
            audit.append(conn, Event("key_x", "run.submitted", a_run()))

        return move

    def claim() -> Callable[[], object]:
        run_id = a_run()
        return lambda: runs.claim(conn, run_id, 0, owner="w", lease=HOUR)

    def held() -> tuple[RunId, int]:
        run_id = a_run()
        found = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)
        assert found is not None
        return run_id, found.fence

    def park() -> Callable[[], object]:
        run_id, fence = held()
        new = bound(asking(tier=Tier.LOW), run_id, [])

        def move() -> None:
            assert snapshots.save(conn, run_id, fence, Snapshot(0, 0, 0, b"[]", b"{}"))
            assert runs.park(conn, run_id, fence, version="1", usage={})
            requests.open_request(conn, run_id, 0, new)
            audit.append(conn, Event("w", "request.opened", run_id, new.id), Event("w", "run.parked", run_id))

        return move

    def vote() -> Callable[[], object]:
        run_id, fence = held()
        new = bound(asking(tier=Tier.LOW), run_id, [])
        assert runs.park(conn, run_id, fence, version="1", usage={})
        requests.open_request(conn, run_id, 0, new)
        ballot = Ballot(Verdict.APPROVE, new.digest, 1)
        return lambda: decide.vote(conn, new.id, Voter("session", person), ballot, PEN)

    def read(look: Callable[[], object]) -> Callable[[], Callable[[], object]]:
        return lambda: look

    def page(queue: inbox.Queue, wanted: Wanted) -> Callable[[], Callable[[], object]]:
        return read(lambda: inbox.page(conn, person, queue, wanted, limit=101))

    def status() -> object:
        waiting = progress.waiting(conn, place.batch)
        return batches.get(conn, place.batch), progress.pace(conn, place.batch, window=HOUR), waiting

    found: dict[str, Callable[[], Callable[[], object]]] = {
        "submit": submit,
        "claim": claim,
        "park": park,
        "vote": vote,
        "dispatch": read(lambda: runs.dispatch(conn, window=100, redispatch=HOUR, max_attempts=3)),
        "sweep cancelled": read(lambda: rescue.bury_cancelled(conn)),
        "sweep children": read(lambda: families.unreported(conn)),
        "sweep silence": read(lambda: silence.due(conn)),
        "sweep notices": read(lambda: mails.claim(conn, lease=HOUR)),
        **{f"inbox {queue}": page(queue, Wanted()) for queue in get_args(inbox.Queue)},
        "inbox counts": read(lambda: inbox.counts(conn, person, most=100)),
        "search found": page("mine", Wanted(text="refund")),
        "search nothing": page("mine", Wanted(text="no-such-thing")),
        "search done": page("done", Wanted(text="no-such-thing")),
        "search batch": page("mine", Wanted(batch_id=place.batch)),
        "runs": read(lambda: lists.of_runs(conn)),
        "runs finished": read(lambda: lists.of_runs(conn, status=RunStatus.FINISHED)),
        "runs of an agent": read(lambda: lists.of_runs(conn, agent="plain")),
        "runs of nobody": read(lambda: lists.of_runs(conn, agent="nobody")),
        "runs of a person": read(lambda: lists.of_runs(conn, requester_id=place.person)),
        "requests open": read(lambda: lists.of_requests(conn, state=RequestState.OPEN)),
        "requests of nobody": read(lambda: lists.of_requests(conn, agent="nobody")),
        "batches": read(lambda: batches.listed(conn, limit=20)),
        "batch of 500, status": read(status),
        "batch of 500, used": read(lambda: progress.used(conn, place.batch)),
        "news": read(lambda: audit.since(conn, audit.horizon(conn), requests=True)),
        "gauges": read(lambda: gauges.read(conn)),
    }
    return found


def compare(
    small: Place, big: Place, *, repeat: int = 15, at_most: float = 20.0
) -> Iterator[tuple[str, Sequence[float]]]:
    """The medians in milliseconds, small and big, of each operation; nothing of it is kept. A statement of more than
    `at_most` seconds counts as that.
    """
    both = [operations(place) for place in (small, big)]
    for name in both[0]:
        taken: list[list[float]] = [[], []]
        for _ in range(repeat):
            for number, place in enumerate((small, big)):
                taken[number].append(_timed(place.conn, both[number][name], at_most))
            if max(taken[1]) > 1000 and len(taken[1]) >= 3:
                break
        yield name, [statistics.median(one) for one in taken]


def _timed(conn: Connection, ready: Callable[[], Callable[[], object]], at_most: float) -> float:
    with _undone(conn):
        conn.execute("SELECT set_config('statement_timeout', %s, true)", (f"{at_most * 1000:.0f}",))
        move = ready()
        began = time.perf_counter()
        try:
            move()
        except psycopg.errors.QueryCanceled:
            return at_most * 1000
        return (time.perf_counter() - began) * 1000


@contextmanager
def _undone(conn: ledger.Connection) -> Generator[None]:
    try:
        yield
    finally:
        conn.rollback()
