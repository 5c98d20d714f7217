"""What must hold after every move, read from the database by its owner, whatever a service would say of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from hypothesis.stateful import RuleBasedStateMachine, invariant
from pydantic_ai.exceptions import ApprovalRequired

from banksman import ids, ledger, records
from banksman.ids import RequestId, RunId
from banksman.ledger import requests, staff
from banksman.records import Claim, Person, Settled
from banksman.signing import Verifier
from banksman.states import Kind
from banksman_gateway.parts import Parts
from banksman_worker.dispatch import Dispatcher
from banksman_worker.gate import Key
from tests.model import expected

DECIDED = ("approved", "denied", "answered", "superseded")


@dataclass
class World:
    """What all examples share. Each brings its own people and runs."""

    parts: Parts
    worker: ledger.Pool
    owner: psycopg.Connection[tuple[Any, ...]]
    dispatcher: Dispatcher
    verifier: Verifier
    reached: Counter[str] = field(default_factory=Counter[str])


@dataclass(eq=False)
class Attempt:
    """A worker that holds a claim, or believes so; nobody tells it when it has lost its run."""

    claim: Claim
    run: expected.Run
    settled: Sequence[Settled]
    earlier: Mapping[Key, records.Execution]
    """What the journal held as it claimed."""
    asks: dict[Key, tuple[Kind, RequestId | None]] = field(default_factory=dict[Key, "tuple[Kind, RequestId | None]"])

    @property
    def calls(self) -> list[Settled]:
        """What may be started, rightly or wrongly, and is not to be asked again as it is."""
        calls = [item for item in self.settled if item.kind in (Kind.APPROVAL, Kind.OUTCOME)]
        return [item for item in calls if (item.step, item.call_id) not in self.asks]

    def again(self, key: Key, _: str) -> ApprovalRequired:
        self.asks[key] = (Kind.APPROVAL, self.of(key).request_id)
        return ApprovalRequired()

    def doubt(self, key: Key) -> ApprovalRequired:
        self.asks[key] = (Kind.OUTCOME, None)
        return ApprovalRequired()

    def of(self, key: Key) -> Settled:
        return next(item for item in self.settled if (item.step, item.call_id) == key)


@dataclass
class Execution:
    """A tool call that was started: by whom, under which request, and whether its end is written."""

    by: Attempt
    key: Key
    attempt: int
    request: RequestId
    finished: bool = False


class Promises(RuleBasedStateMachine):
    """One example's people, runs and workers, as they should be, and the comparison with how they are."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.people: list[Person] = []
        self.disabled: set[int] = set()
        self.runs: dict[RunId, expected.Run] = {}
        self.requests: dict[RequestId, expected.Request] = {}
        self.attempts: list[Attempt] = []
        self.executions: list[Execution] = []
        self.told: Counter[tuple[expected.Run, str]] = Counter()
        self.kept: set[tuple[Any, ...]] = set()
        self.verified: set[RequestId] = set()
        with ledger.transaction(world.parts.pool) as conn:
            for _ in range(5):
                email = f"{ids.new().hex}@example.org"
                self.people.append(staff.upsert(conn, email, name="Somebody", roles=("reviewer",)))

    def teardown(self) -> None:
        """Leave nothing behind that a later example's sweep or dispatcher could find."""
        self.world.owner.execute(
            "WITH closed AS (UPDATE requests SET state = 'cancelled', settled_at = now(), due_at = NULL"
            " WHERE state = 'open')"
            " UPDATE runs SET status = 'cancelled', due_at = NULL, owner = NULL, finished_at = now()"
            " WHERE finished_at IS NULL"
        )

    @invariant()
    def all_promises_hold(self) -> None:
        """Look once, in one round trip, and compare."""
        found = self._look()
        self._the_database_says_what_the_model_says(found["runs"], found["requests"])
        self._a_run_waits_while_something_is_open_and_no_longer()
        self._what_is_said_and_what_is_over_never_changes(found)
        self._a_decision_is_the_word_of_enough_people_who_may_give_it(found["decisions"], found["votes"])
        self._each_word_of_people_starts_its_call_at_most_once(found["executions"])
        assert {(self.runs[row[0]], row[1]): row[2] for row in found["audit"]} == dict(self.told)

    def _look(self) -> dict[str, list[tuple[Any, ...]]]:
        asked = "SELECT id FROM requests WHERE run_id = ANY(%s)"
        queries = {
            "runs": "SELECT id, status, segment, fence, attempts, due_at < clock_timestamp(), cancel_at IS NOT NULL,"
            " finished_at FROM runs WHERE id = ANY(%s) ORDER BY id",
            "requests": "SELECT id, state, revision FROM requests WHERE run_id = ANY(%s) ORDER BY id",
            "votes": "SELECT request_id, revision, verdict, person_id, votes.* FROM votes"
            f" WHERE request_id IN ({asked})",
            "decisions": "SELECT request_id, revision, verdict, statement, signature, kid, start_by, created_at"
            f" FROM decisions WHERE request_id IN ({asked})",
            "revisions": f"SELECT * FROM revisions WHERE request_id IN ({asked})",
            "executions": "SELECT run_id, step, call_id, attempt, request_id, executions.digest = revisions.digest,"
            " verdict FROM executions LEFT JOIN decisions USING (request_id)"
            " LEFT JOIN revisions USING (request_id, revision) WHERE run_id = ANY(%s)",
            "audit": "SELECT run_id, action, count(*) FROM audit_events WHERE run_id = ANY(%s) GROUP BY 1, 2",
        }
        with self.world.owner.pipeline():
            cursors = {
                name: self.world.owner.execute(query.encode(), (list(self.runs),)) for name, query in queries.items()
            }
        return {name: cursor.fetchall() for name, cursor in cursors.items()}

    def _the_database_says_what_the_model_says(
        self, found: Sequence[tuple[Any, ...]], asked: Sequence[tuple[Any, ...]]
    ) -> None:
        for (run_id, run), row in zip(sorted(self.runs.items()), found, strict=True):
            assert row[:5] == (run_id, run.status, run.segment, run.fence, run.attempts)
            if run.status in ("queued", "running"):
                assert row[5:7] == (run.due, run.stopping)
        assert asked == [(key, item.state, item.revision) for key, item in sorted(self.requests.items())]

    def _a_run_waits_while_something_is_open_and_no_longer(self) -> None:
        for run in self.runs.values():
            open_ = [item for item in self.requests.values() if item.run is run and item.state == "open"]
            assert (run.status == "waiting") == bool(open_)

    def _what_is_said_and_what_is_over_never_changes(self, found: dict[str, list[tuple[Any, ...]]]) -> None:
        over = [row for row in found["runs"] if row[7] is not None]
        now = {*found["votes"], *found["decisions"], *found["revisions"], *over}
        assert self.kept <= now
        self.kept = now

    def _a_decision_is_the_word_of_enough_people_who_may_give_it(
        self, rows: Sequence[tuple[Any, ...]], votes: Sequence[tuple[Any, ...]]
    ) -> None:
        decided = {row[0]: requests.decision_of(row[0], row[1:]) for row in rows}
        assert decided.keys() == {key for key, item in self.requests.items() if item.state in DECIDED}
        cast_ = {row[:4] for row in votes}
        for request_id in decided.keys() - self.verified:
            request = self.requests[request_id]
            said = self.world.verifier.verify(decided[request_id].signed)
            by = [ids.read("per", voter["by"]) for voter in said["voters"]]
            assert (said["request"], said["revision"]) == (ids.show("req", request_id), request.revision)
            assert {(request_id, request.revision, said["said"], one) for one in by} <= cast_
            assert sorted(by) == sorted(self.people[who].id for who in request.voters)
            assert len(set(by)) == len(by) >= (request.approvals if said["verdict"] == "approved" else 1)
            assert request.kind not in ("approval", "outcome") or request.run.requester not in request.voters
            self.verified.add(request_id)

    def _each_word_of_people_starts_its_call_at_most_once(self, started: Sequence[tuple[Any, ...]]) -> None:
        assert len({row[4] for row in started}) == len(started) == len(self.executions)
        assert {row[:5] for row in started} == {
            (one.by.claim.run_id, *one.key, one.attempt, one.request) for one in self.executions
        }
        assert all(row[5:] == (True, "approved") for row in started)

    # What the rules share.

    def may_say(self, who: int, request: expected.Request) -> bool:
        return who not in self.disabled | request.said.keys() and who != request.run.requester

    def open_runs(self) -> list[expected.Run]:
        return [run for run in self.runs.values() if run.status not in expected.FINAL]

    def undecided(self) -> list[expected.Request]:
        return [item for item in self.requests.values() if item.state == "open" and not item.overdue]

    def live(self) -> list[expected.Run]:
        return [run for run in self.runs.values() if run.status in ("queued", "running")]

    def reach(self, *names: str) -> None:
        self.world.reached.update(names)

    def an_attempt(self, n: int, wild: bool, fits: Callable[[Attempt], bool] = lambda _: True) -> Attempt:
        """One that holds its run, if there is one; wildly, or otherwise, any."""
        found = [item for item in self.attempts if fits(item)]
        live = [item for item in found if item.run.commits(item.claim.fence) and not item.run.stopping]
        chosen = found if wild or not live else live
        return chosen[n % len(chosen)]

    def wake(self, run: expected.Run) -> None:
        if run.status == "waiting" and not any(
            item.run is run and item.state == "open" for item in self.requests.values()
        ):
            run.goes("queued")

    def stop(self, run: expected.Run) -> None:
        """What asking for a stop does: at once where no worker holds the run."""
        if run.status == "running":
            run.stopping = True
            self.told[run, "run.cancel_asked"] += 1
        elif run.status not in expected.FINAL:
            run.goes("cancelled")
            self.told[run, "run.cancelled"] += 1
            self.reach("cancelled")
        for item in self.requests.values():
            if item.run is run and item.state == "open":
                item.state = "cancelled"
                self.told[run, "request.cancelled"] += 1
