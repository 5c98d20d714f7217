"""The journal's own statements: each thing that a start needs is taken away in turn, and nothing starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from banksman import digest, ids, ledger
from banksman.errors import NotGenuine
from banksman.ids import RequestId, RunId
from banksman.ledger import decisions, executions, requests, runs, silence
from banksman.links import LinkKeys
from banksman.records import Decision, NewRun, Person
from banksman.signing import Signer, Verifier
from banksman.states import Verdict
from banksman_gateway import decide
from banksman_worker.gate import Cleared
from banksman_worker.journal import Journal
from tests.conftest import Database
from tests.gateway.scenes import asking

HOUR = timedelta(hours=1)


@dataclass
class Ready:
    """A claimed run with an approved call that may start now."""

    gateway: ledger.Pool
    worker: ledger.Pool
    owner: str
    voter: Person
    run_id: RunId
    fence: int
    request_id: RequestId

    def starts(self, **other: Any) -> bool:
        """Whether the call starts, told so."""
        said: dict[str, Any] = {
            "fence": self.fence,
            "attempt": 1,
            "request_id": self.request_id,
            "voters": {self.voter.id: "reviewer"},
            "start_by": (datetime.now(UTC) + HOUR).isoformat(),
            **other,
        }
        fence = said.pop("fence")
        with ledger.transaction(self.worker) as conn:
            return executions.start(
                conn, self.run_id, fence, step=1, call_id="c1", tool="write_file", digest=b"d", **said
            )

    def somebody_waits(self) -> bool:
        """Whether a transaction waits for a row that another one holds."""
        with psycopg.connect(self.owner) as conn:
            return conn.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None

    def until(self, fact: Callable[[], bool]) -> None:
        """Wait for it."""
        waiter = threading.Event()
        assert any(fact() or waiter.wait(0.02) for _ in range(500))

    def make(self, statement: str) -> None:
        """Change rows as their owner."""
        with psycopg.connect(self.owner) as conn:
            conn.execute(statement.encode())


@pytest.fixture
def ready(
    gateway_pool: ledger.Pool,
    worker_pool: ledger.Pool,
    database: Database,
    reviewers: tuple[Person, Person],
    signer: Signer,
) -> Ready:
    run_id, new = RunId(ids.new()), asking()
    pen = decide.Pen(signer, LinkKeys({"k1": bytes(32)}), HOUR)
    with ledger.transaction(gateway_pool) as conn:
        runs.create(conn, NewRun(run_id, "plain", "Do it.", "somebody@example.org"), hint=HOUR)
    with ledger.transaction(worker_pool) as conn:
        claim = runs.claim(conn, run_id, 0, owner="w", lease=HOUR)
        assert claim is not None
        requests.open_request(conn, run_id, 0, new)
        assert runs.park(conn, run_id, claim.fence, version="1", usage={})
    with ledger.transaction(gateway_pool) as conn:
        ballot = decide.Ballot(Verdict.APPROVE, new.digest, 1)
        decide.vote(conn, new.id, decide.Voter("session", reviewers[0]), ballot, pen)
    with ledger.transaction(worker_pool) as conn:
        claim = runs.claim(conn, run_id, 1, owner="w", lease=HOUR)
        assert claim is not None
    return Ready(gateway_pool, worker_pool, database.owner, reviewers[0], run_id, claim.fence, new.id)


def test_with_everything_in_place_a_call_starts_once(ready: Ready) -> None:
    assert ready.starts()
    assert not ready.starts()
    assert ready.starts(attempt=2)


def test_nothing_starts_under_another_fence(ready: Ready) -> None:
    assert not ready.starts(fence=ready.fence - 1)
    assert not ready.starts(fence=ready.fence + 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET due_at = clock_timestamp() - interval '1 s'",
        "UPDATE runs SET status = 'queued', owner = NULL",
        "UPDATE runs SET cancel_at = clock_timestamp()",
        "UPDATE requests SET state = 'denied'",
        "UPDATE requests SET state = 'superseded'",
        "UPDATE requests SET state = 'expired'",
        "UPDATE people SET disabled_at = clock_timestamp()",
        "UPDATE people SET roles = '{auditor}'",
    ],
)
def test_nothing_starts_once_this_has_happened(ready: Ready, statement: str) -> None:
    ready.make(statement)

    assert not ready.starts()


def test_nothing_starts_after_its_time_or_under_the_request_of_another_run(ready: Ready) -> None:
    assert not ready.starts(start_by=(datetime.now(UTC) - HOUR).isoformat())

    with ledger.transaction(ready.gateway) as conn:
        other = RunId(ids.new())
        runs.create(conn, NewRun(other, "plain", "Do it.", "somebody@example.org"), hint=HOUR)
    with ledger.transaction(ready.worker) as conn:
        claim = runs.claim(conn, other, 0, owner="w", lease=HOUR)
        assert claim is not None
        assert not executions.start(
            conn, other, claim.fence, step=1, call_id="c1", attempt=1, tool="write_file", digest=b"d",
            request_id=ready.request_id, voters={ready.voter.id: "reviewer"}, start_by=None,
        )  # fmt: skip


def test_a_voter_must_still_have_the_role_that_they_voted_by(ready: Ready) -> None:
    assert not ready.starts(voters={ready.voter.id: "admin"})

    ready.make("UPDATE people SET roles = '{admin}'")

    assert not ready.starts(voters={ready.voter.id: "reviewer"})
    assert ready.starts(voters={ready.voter.id: "admin"})


def test_only_the_attempt_that_started_a_call_says_how_it_ended_and_once(ready: Ready) -> None:
    assert ready.starts()

    def ends(**other: Any) -> bool:
        said: dict[str, Any] = {"fence": ready.fence, "attempt": 1, **other}
        fence = said.pop("fence")
        with ledger.transaction(ready.worker) as conn:
            return executions.finish(
                conn, ready.run_id, fence, step=1, call_id="c1", outcome="returned", result=b"{}", **said
            )

    assert not ends(fence=ready.fence + 1)
    assert not ends(attempt=2)
    assert ends()
    assert not ends()


def test_a_result_and_the_runs_end_that_cross_leave_the_result_told(ready: Ready) -> None:
    assert ready.starts()
    with ledger.transaction(ready.gateway) as conn:
        runs.cancel(conn, [ready.run_id])

    def stop() -> None:
        with ledger.transaction(ready.worker) as conn:
            assert runs.stop(conn, ready.run_id, ready.fence)

    stopper = threading.Thread(target=stop)
    with ledger.transaction(ready.worker) as conn:
        assert executions.finish(
            conn,
            ready.run_id,
            ready.fence,
            step=1,
            call_id="c1",
            attempt=1,
            outcome="returned",
            result=b'{"kind": "value", "value": "paid"}',
        )
        stopper.start()
        ready.until(lambda: not stopper.is_alive() or ready.somebody_waits())
    stopper.join()

    with ledger.transaction(ready.gateway) as conn:
        error = runs.get(conn, ready.run_id).error
    assert error is not None
    assert error.endswith("write_file had started and returned: paid")


def test_a_decision_that_comes_second_is_not_written(ready: Ready) -> None:
    with ledger.transaction(ready.gateway) as conn:
        first = decisions.get(conn, ready.request_id)
        assert first is not None
        assert not decisions.settle(conn, first)


def test_what_is_settled_does_not_expire(ready: Ready) -> None:
    ready.make("UPDATE requests SET expires_at = now()")

    with ledger.transaction(ready.gateway) as conn:
        assert not silence.expire(conn, ready.request_id)


THE_SAME_TWICE: dict[str, Any] = {
    "requirement": {"approvals": 2},
    "voters": [{"by": "per_1", "as": "reviewer", "instead_of": []}] * 2,
}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"voters": []}, "fewer voters"),
        (THE_SAME_TWICE, "fewer voters"),
        ({"digest": "00"}, "another action"),
        ({"run": "run_0"}, "another action"),
        ({"request": "req_0"}, "another action"),
        ({"verdict": "denied"}, "another action"),
    ],
)
def test_a_signed_decision_that_says_something_else_starts_nothing(
    ready: Ready, verifier: Verifier, signer: Signer, other: dict[str, Any], why: str
) -> None:
    with ledger.transaction(ready.worker) as conn:
        [settled] = requests.settled(conn, ready.run_id, 1)
    assert settled.decision is not None
    said = verifier.verify(settled.decision.signed)
    short = replace(settled.decision, signed=signer.sign({**said, **other}))
    gate = SimpleNamespace(claim=SimpleNamespace(run_id=ready.run_id, fence=ready.fence))
    book = Journal(cast("Any", gate), ready.worker, verifier, cast("Any", None), cast("Any", None))
    cleared = Cleared(digest.of_action(digest.parse(settled.action)), "unknown", {}, ready.request_id)

    with ledger.transaction(ready.worker) as conn, pytest.MonkeyPatch.context() as patch:
        assert book._verify(conn, cleared)[0] == {ready.voter.id: "reviewer"}  # pyright: ignore[reportPrivateUsage]

        def get(*_: object) -> Decision:
            return short

        patch.setattr(decisions, "get", get)
        with pytest.raises(NotGenuine, match=why):
            book._verify(conn, cleared)  # pyright: ignore[reportPrivateUsage]
