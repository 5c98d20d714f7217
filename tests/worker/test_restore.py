"""PostgreSQL is restored to an earlier moment: what has acted since does not act again by itself."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from uuid import uuid4

import psycopg
from pydantic_ai import Agent

from banksman import ledger
from banksman.embedded.postgres import Postgres
from banksman.ids import RunId
from banksman.ledger import restore, runs, staff
from banksman.records import Request, Run
from banksman.signing import Signer, Verifier
from banksman.states import RequestState, RunStatus
from banksman.wire import Wire
from banksman_gateway import runs as gateway_runs
from banksman_worker import segment
from banksman_worker.dispatch import Dispatcher
from tests.conftest import PASSWORDS
from tests.worker.conftest import HINT, Site, SiteMaker, sites
from tests.worker.test_segment import a_site, agent_calling

SOON = timedelta(seconds=1)


class World:
    """Databases of one server, and one outside world that does not go back with them."""

    def __init__(self, server: Postgres, wire: Wire, signer: Signer, verifier: Verifier) -> None:
        self.server, self.wire, self.signer, self.verifier = server, wire, signer, verifier
        self.paid: list[int] = []
        self.names: list[str] = []

    def database(self, template: str) -> str:
        """A copy of another database, which nobody may be connected to."""
        name = f"restore_{uuid4().hex[:12]}"
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'.encode())
        self.names.append(name)
        return name

    def drop(self) -> None:
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            for name in self.names:
                conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def agent(self) -> Agent[None, str]:
        agent = agent_calling(("pay", {"amount": 5}))

        @agent.tool_plain(requires_approval=True)
        def pay(amount: int) -> str:
            self.paid.append(amount)
            return f"paid {amount}"

        del pay
        return agent

    @contextmanager
    def site(self, name: str) -> Generator[Site]:
        """Workers and a gateway on one of the databases; all are disconnected afterwards."""
        with ExitStack() as closing:
            worker, gateway = (
                ledger.open_pool(self.server.url(name, user=role, password=PASSWORDS[role]), size=4, name="test")
                for role in ("banksman_worker", "banksman_gateway")
            )
            closing.callback(worker.close)
            closing.callback(gateway.close)
            with ledger.transaction(gateway) as conn:
                ana, ben = (staff.upsert(conn, f"{who}@example.org", name=who) for who in ("ana", "ben"))
            make = closing.enter_context(sites(worker, gateway, self.wire, self.signer, self.verifier, (ana, ben)))
            yield make({"payer": self.agent()})


def a_round(here: Site, *run_ids: RunId) -> None:
    """What workers do once they start: the dispatcher looks, and every wake-up that may be about is heard again."""
    Dispatcher(here.worker.pool, here.worker.wire, interval=1, window=99, redispatch=SOON, max_attempts=9).look()
    for run_id in run_ids:
        for number in (0, 1, 2):
            segment.advance(here.worker, run_id, number)


def retried(here: Site, run_id: RunId) -> Run:
    """A person has looked, and says that it may go on."""
    with ledger.transaction(here.gateway) as conn:
        gateway_runs.retry(conn, run_id, "per_test", hint=HINT)
    return here.run(run_id)


def test_after_a_restore_nothing_that_was_under_way_acts_again_unless_a_person_says_so(
    postgres_server: Postgres, wire: Wire, signer: Signer, verifier: Verifier
) -> None:
    world = World(postgres_server, wire, signer, verifier)
    try:
        _tell_the_story(world)
    finally:
        world.drop()


def _tell_the_story(world: World) -> None:
    live = world.database("template_banksman")
    with world.site(live) as here:
        asked, request = _parked(here)
        approved, other = _parked(here)
        here.vote(other, "approve")
        finished, third = _parked(here)
        here.vote(third, "approve")
        assert here.advance(finished).status is RunStatus.FINISHED
        new = here.submit("payer")
    assert world.paid == [5]
    backup = world.database(live)
    with world.site(live) as here:  # time goes on, and three runs act
        here.vote(request, "approve")
        here.advance(asked)
        here.advance(approved)
        here.advance(new)
        here.decide_all(new, "approve")
    assert world.paid == [5, 5, 5, 5]

    # The restore, the check by whoever owns the database, and only then the workers.
    with ledger.once(world.server.url(backup), name="test") as conn:
        found = restore.look(conn)
        after, marked = restore.doubt(conn, None, limit=2)
        assert (after is not None, marked) == (True, 2)
        assert restore.doubt(conn, after, limit=2) == (None, 1)
    assert dict(found.runs) == {"waiting": 1, "queued": 2}
    with world.site(backup) as here:
        a_round(here, asked, approved, new, finished)
        assert [item.id for item in here.open(asked)] == [request.id]
        outcome = here.vote(request, "approve")
        a_round(here, asked, approved, new, finished)

        assert (outcome.request.state, outcome.resume) == (RequestState.APPROVED, None)
        assert world.paid == [5, 5, 5, 5]
        for run_id in (asked, approved, new):
            run = here.run(run_id)
            assert run.status is RunStatus.STUCK
            assert run.error is not None
            assert run.error.startswith("The database was restored to an earlier moment")
            assert run.error.endswith("Check what it did, then retry or fail it.")
        assert here.run(finished).status is RunStatus.FINISHED
        with ledger.transaction(here.gateway) as conn:
            gateway_runs.give_up(conn, asked, "per_test", who="Ana", reason="It has paid.")
        assert retried(here, new).status is RunStatus.QUEUED
        assert here.advance(new).status is RunStatus.WAITING
        assert world.paid == [5, 5, 5, 5]


def _parked(here: Site) -> tuple[RunId, Request]:
    run_id, [request] = here.waiting("payer")
    return run_id, request


def test_a_retried_run_waits_for_what_is_still_open(
    postgres_server: Postgres, wire: Wire, signer: Signer, verifier: Verifier
) -> None:
    world = World(postgres_server, wire, signer, verifier)
    name = world.database("template_banksman")
    try:
        with world.site(name) as here:
            run_id, request = _parked(here)
            with ledger.once(world.server.url(name), name="test") as conn:
                assert restore.doubt(conn, None) == (None, 1)

            waiting = retried(here, run_id)
            outcome = here.vote(request, "approve")

            assert (waiting.status, waiting.attempts) == (RunStatus.WAITING, 0)
            assert outcome.resume == (run_id, 1)
            assert here.advance(run_id).status is RunStatus.FINISHED
            assert world.paid == [5]
    finally:
        world.drop()


def test_a_second_restore_doubts_what_was_retried_after_the_first(site: SiteMaker, owner_pool: ledger.Pool) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    with ledger.transaction(owner_pool) as conn:
        assert restore.doubt(conn, None) == (None, 1)
    retried(here, run_id)
    here.vote(request, "approve")

    with ledger.transaction(owner_pool) as conn:
        found = restore.look(conn)
        marked = restore.doubt(conn, None), restore.doubt(conn, None)
    here.advance(run_id)

    assert dict(found.runs) == {"queued": 1}
    assert marked == ((None, 1), (None, 0))
    run = here.run(run_id)
    assert (run.status, here.effects) == (RunStatus.STUCK, [])
    assert run.error is not None
    assert run.error.count("The database was restored") == 1


def test_no_claim_after_a_restore_has_the_fence_of_one_that_was_taken_back(
    site: SiteMaker, owner_pool: ledger.Pool
) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = here.waiting("payer")
    with ledger.transaction(owner_pool) as conn:
        restored = conn.execute("SELECT fence FROM runs").fetchone()
        restore.doubt(conn, None)
    assert restored is not None
    retried(here, run_id)
    here.vote(request, "approve")

    with ledger.transaction(here.worker.pool) as conn:
        claim = runs.claim(conn, run_id, 1, owner="w", lease=SOON)

    assert claim is not None
    assert claim.fence > restored[0] + 100_000  # more claims than any run had in the time that was taken back
