"""What a run costs in statements, transactions and bytes: counted, so that it is the same on every machine."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from banksman import ledger
from banksman.bench import subject
from banksman.ids import RunId
from banksman.states import RunStatus
from tests.worker.conftest import Site, SiteMaker


@dataclass
class Counted:
    """What the worker's connections were asked."""

    statements: list[str] = field(default_factory=list[str])
    commits: int = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Generator[Counted]:
    """Count what the worker asks of PostgreSQL, except for its heartbeat."""
    found = Counted()
    execute, commit = psycopg.Cursor.execute, psycopg.Connection.commit

    def ours(conn: psycopg.Connection[Any]) -> bool:
        return conn.info.user == "banksman_worker" and threading.current_thread().name != "leases"

    def counted_execute(self: psycopg.Cursor[Any], query: Any, *more: Any, **named: Any) -> Any:
        if ours(self.connection):
            found.statements.append(" ".join(str(query).split()))
        return execute(self, query, *more, **named)

    def counted_commit(self: psycopg.Connection[Any]) -> None:
        found.commits += ours(self)
        commit(self)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counted_execute)
        patch.setattr(psycopg.Connection, "commit", counted_commit)
        yield found


def test_a_run_of_one_harmless_and_one_approved_call_costs_no_more_than_this(
    site: SiteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site({"bench": subject.agent})
    run_id = here.submit("bench", subject.prompt())

    with counting(monkeypatch) as first:
        assert here.advance(run_id).status is RunStatus.WAITING
    [request] = here.open(run_id)
    here.vote(request, "approve")
    with counting(monkeypatch) as second:
        assert here.advance(run_id).status is RunStatus.FINISHED

    # Claim and its event; snapshot; the harmless call's start and end; and the pause: who is to be told, snapshot,
    # the run's row with all events, the request.
    assert (len(first.statements), first.commits) == (9, 5), "\n".join(first.statements)
    # Claim and its event; what is stored, in three; the decision, and the call's start and end; and the end: snapshot,
    # the run's row with its event.
    assert (len(second.statements), second.commits) == (10, 5), "\n".join(second.statements)


def answering(turns: int) -> Agent[None, str | DeferredToolRequests]:
    """An agent that makes an approved call each turn, so many times."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        done = sum(isinstance(message, ModelResponse) for message in messages)
        if done == turns:
            return ModelResponse([TextPart("done")])
        return ModelResponse([ToolCallPart("act", {"number": done}, tool_call_id=f"call_{done}")])

    agent = Agent(FunctionModel(answer, model_name="scripted"), name="actor", output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def act(number: int) -> str:
        return f"did {number:04}"

    del act
    return agent


def written(here: Site, run_id: RunId) -> dict[int, int]:
    """The bytes of the snapshots of each segment."""
    with ledger.transaction(here.gateway) as conn:
        rows = conn.execute(
            "SELECT segment, sum(length(messages) + length(state)) FROM snapshots WHERE run_id = %s GROUP BY segment",
            (run_id,),
        ).fetchall()
    return dict(rows)


def test_a_segment_writes_no_more_after_many_than_after_one(site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    here = site({"actor": answering(12)})
    run_id = here.submit("actor")
    counted: list[Counted] = []

    run = here.run(run_id)
    while run.status is not RunStatus.FINISHED:
        for request in here.open(run_id):
            here.vote(request, "approve")
        with counting(monkeypatch) as found:
            run = here.advance(run_id)
        counted.append(found)

    bytes_of = written(here, run_id)
    assert len(bytes_of) == 13
    assert max(bytes_of[number] for number in range(2, 12)) <= bytes_of[1] + 16  # its numbers have more digits
    assert {(len(item.statements), item.commits) for item in counted[1:-1]} == {
        (len(counted[1].statements), counted[1].commits)
    }
