"""A worker's means without Celery: the functions under the tasks, on the real ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent

from banksman import digest, ids, ledger
from banksman.digest import Json
from banksman.ids import RunId
from banksman.ledger import requests, runs
from banksman.links import LinkKeys
from banksman.policy import Policy
from banksman.records import NewRun, Person, Request, Run
from banksman.signing import Signer, Verifier
from banksman.states import RequestState, RunStatus, Verdict
from banksman.wire import Wire
from banksman_gateway import decide
from banksman_worker import agents as listing
from banksman_worker import segment
from banksman_worker.agents import Listed, Loaded
from banksman_worker.lease import Leases
from banksman_worker.loop import Loop
from banksman_worker.parts import Worker

LEASE = timedelta(seconds=30)
HINT = timedelta(seconds=5)


@dataclass
class Site:
    """A worker, a gateway's doorway and two reviewers: enough to carry a run by hand."""

    worker: Worker
    gateway: ledger.Pool
    pen: decide.Pen
    reviewers: tuple[Person, Person]
    effects: list[Any] = field(default_factory=list[Any])

    def submit(
        self, agent: str, prompt: str = "Do it.", *, requester: Person | None = None, tags: Sequence[str] = ()
    ) -> RunId:
        """Nothing → queued."""
        run_id = RunId(ids.new())
        who = requester.email if requester else "someone@example.org"
        new = NewRun(run_id, agent, prompt, who, requester.id if requester else None, tags=tags)
        with ledger.transaction(self.gateway) as conn:
            runs.create(conn, new, hint=HINT)
        return run_id

    def advance(self, run_id: RunId) -> Run:
        """One segment, by the function under the task."""
        segment.advance(self.worker, run_id, self.run(run_id).segment)
        return self.run(run_id)

    def run(self, run_id: RunId) -> Run:
        """The run as it stands."""
        with ledger.transaction(self.gateway) as conn:
            return runs.get(conn, run_id)

    def open(self, run_id: RunId) -> list[Request]:
        """What the run waits for."""
        with ledger.transaction(self.gateway) as conn:
            found = requests.of_run(conn, run_id)
        return [item for item in found if item.state is RequestState.OPEN]

    def vote(
        self, request: Request, verdict: str, *, by: int = 0, arguments: Json = None, **more: Any
    ) -> decide.Outcome:
        """One reviewer's vote on what was shown."""
        ballot = decide.Ballot(Verdict(verdict), request.digest, request.revision, arguments=arguments, **more)
        voter = decide.Voter("session", self.reviewers[by])
        with ledger.transaction(self.gateway) as conn:
            return decide.vote(conn, request.id, voter, ballot, self.pen)

    def decide_all(self, run_id: RunId, verdicts: Mapping[str, str] | str) -> Run:
        """Vote on everything open, by tool, and carry the run on."""
        for request in self.open(run_id):
            verdict = verdicts if isinstance(verdicts, str) else verdicts[request.tool]
            self.vote(request, verdict)
        return self.advance(run_id)

    def arguments(self, request: Request) -> Json:
        """The effective arguments of a request."""
        return digest.parse(request.action)["arguments"]

    def waiting(self, agent: str, prompt: str = "Do it.") -> tuple[RunId, list[Request]]:
        """A run parked on its first requests."""
        run_id = self.submit(agent, prompt)
        assert self.advance(run_id).status is RunStatus.WAITING
        return run_id, self.open(run_id)


SiteMaker = Callable[..., Site]


@pytest.fixture
def site(
    worker_pool: ledger.Pool,
    gateway_pool: ledger.Pool,
    wire: Wire,
    signer: Signer,
    verifier: Verifier,
    reviewers: tuple[Person, Person],
) -> Iterator[SiteMaker]:
    """Makes sites for given agents; every one is closed afterwards."""
    with sites(worker_pool, gateway_pool, wire, signer, verifier, reviewers) as make:
        yield make


@contextmanager
def sites(
    worker_pool: ledger.Pool,
    gateway_pool: ledger.Pool,
    wire: Wire,
    signer: Signer,
    verifier: Verifier,
    reviewers: tuple[Person, Person],
) -> Generator[SiteMaker]:
    """Makes sites on one database, as the fixture `site` does on the test's own."""
    closing: list[Callable[[], None]] = []

    def make(
        agents: Mapping[str, Agent[Any, Any] | Listed | Loaded],
        *,
        policy: Policy | None = None,
        lease: timedelta = LEASE,
        trusts: Verifier | None = None,
        pool: ledger.Pool = worker_pool,
    ) -> Site:
        loop = Loop()
        executor = ThreadPoolExecutor(4)
        leases = Leases(pool, lease, loop)
        closing.extend([loop.close, executor.shutdown, leases.close])
        worker = Worker(
            name=f"test-{len(closing)}",
            pool=pool,
            wire=wire,
            loop=loop.loop,
            executor=executor,
            leases=leases,
            agents={
                name: agent if isinstance(agent, Loaded) else listing.loaded("tests", name, agent)
                for name, agent in agents.items()
            },
            policy=policy or Policy(),
            verifier=trusts or verifier,
            lease=lease,
            desk=threading.Semaphore(4),
            hint=HINT,
        )
        pen = decide.Pen(signer, LinkKeys({"k1": bytes(32)}), HINT)
        return Site(worker, gateway_pool, pen, reviewers)

    try:
        yield make
    finally:
        for close in reversed(closing):
            close()
