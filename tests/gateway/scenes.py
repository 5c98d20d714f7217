"""Factories that climb by real moves: a run, a run that waits, credentials, and a gateway to ask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from banksman import digest, ids, ledger, tokens
from banksman.digest import Json
from banksman.ids import NoticeId, PersonId, RequestId, RunId
from banksman.ledger import Connection, agents, keys, notices, requests, runs, snapshots, staff
from banksman.records import NewRequest, Notice, Person, Requirement, Snapshot
from banksman.states import Kind
from banksman_gateway import parts
from banksman_gateway.parts import Parts

NOTIFIER_TOKEN = "the notifier's own token"
LEASE = timedelta(minutes=5)
SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    "required": ["path", "content"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway under test, with a database on both of its sides."""

    client: TestClient
    gateway: ledger.Pool
    worker: ledger.Pool
    ana: Person
    ben: Person

    def key(self, *scopes: str, owner: PersonId | None = None, name: str = "ci") -> dict[str, str]:
        """Headers of a machine's key."""
        return self._headers("key", name, scopes, owner)

    def token(self, person: Person, *scopes: str) -> dict[str, str]:
        """Headers of a person's token; without scopes it may do what the person may."""
        return self._headers("tok", "token", scopes, person.id)

    def a_person(self, email: str, *roles: str) -> Person:
        """Somebody more."""
        with ledger.transaction(self.gateway) as conn:
            return staff.upsert(conn, email, name=email.partition("@")[0], roles=roles)

    def a_run(self, requester: Person | None = None, *, agent: str = "plain") -> RunId:
        """A submitted run, over HTTP."""
        headers = self.key("runs:submit") if requester is None else self.token(requester)
        answer = self.client.post("/v1/runs", json={"agent": agent, "prompt": "Do it."}, headers=headers)
        assert answer.status_code == 201, answer.text
        return RunId(ids.read("run", answer.json()["id"]))

    def a_waiting_run(self, *asked: NewRequest, requester: Person | None = None) -> tuple[RunId, Sequence[RequestId]]:
        """A run that a worker has parked behind these requests (by default one)."""
        run_id = self.a_run(requester)
        opened = asked or (asking(),)
        with ledger.transaction(self.worker) as conn:
            claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
            assert claim is not None
            for new in opened:
                told = [(NoticeId(ids.new()), self.ana.id)]
                requests.open_request(conn, run_id, 0, bound(new, run_id, told))
            assert runs.park(conn, run_id, claim.fence, version="1", usage={})
        return run_id, [new.id for new in opened]

    def a_stuck_run(self) -> RunId:
        """A run whose attempts are used up."""
        run_id = self.a_run()
        with ledger.transaction(self.worker) as conn:
            claim = runs.claim(conn, run_id, 0, owner="w", lease=-LEASE)
            assert claim is not None
            runs.dispatch(conn, window=99, redispatch=LEASE, max_attempts=1)
        return run_id

    def a_run_with_files(self, files: Mapping[str, bytes]) -> RunId:
        """A run under way with two snapshots: two messages, then the second one again, and a third."""
        run_id = self.a_run()
        hashes = {path: sha256(body) for path, body in files.items()}
        state = json.dumps({"workspace": hashes, "todos": [], "uploads": {}, "usage": {}}).encode()
        first, second = b'[{"n": 1}, {"n": 2}]', b'[{"n": 22}, {"n": 3}]'
        with ledger.transaction(self.worker) as conn:
            claim = runs.claim(conn, run_id, 0, owner="w", lease=LEASE)
            assert claim is not None
            snapshots.keep_blobs(conn, run_id, {sha256(body): body for body in files.values()})
            for seq, kept, messages in ((0, 0, first), (1, 1, second)):
                assert snapshots.save(
                    conn, run_id, claim.fence, Snapshot(seq=seq, segment=0, kept=kept, messages=messages, state=state)
                )
        return run_id

    def finish(self, run_id: RunId) -> None:
        """A run's next segment, claimed and finished."""
        with ledger.transaction(self.worker) as conn:
            segment = runs.get(conn, run_id).segment
            claim = runs.claim(conn, run_id, segment, owner="w", lease=LEASE)
            assert claim is not None
            assert runs.finish(conn, run_id, claim.fence, output="done", version="1", usage={})

    @property
    def parts(self) -> Parts:
        """What the gateway under test works with."""
        return parts.of(cast("FastAPI", self.client.app))

    def announce(self, *names: str) -> None:
        """What a worker writes when it starts."""
        with ledger.transaction(self.worker) as conn:
            agents.announce(conn, {name: ("1", {}) for name in names})

    def request(self, request_id: RequestId) -> dict[str, Any]:
        """The request as it is read from outside."""
        url = f"/v1/requests/{ids.show('req', request_id)}"
        answer = self.client.get(url, headers=self.key("requests:read"))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def vote(self, request_id: RequestId, headers: Mapping[str, str], **said: Any) -> Response:
        """A vote on what is shown now, unless `said` says otherwise."""
        shown = self.request(request_id)
        body = {"verdict": "approve", "digest": shown["digest"], "revision": shown["revision"]} | said
        return self.client.post(f"/v1/requests/{ids.show('req', request_id)}/votes", json=body, headers=headers)

    def _headers(self, kind: str, name: str, scopes: Sequence[str], owner: PersonId | None) -> dict[str, str]:
        minted = tokens.mint(kind)
        with ledger.transaction(self.gateway) as conn:
            keys.store(conn, minted, kind=kind, name=name, scopes=scopes, person=owner, lifetime=timedelta(days=1))
        return {"Authorization": f"Bearer {minted.text}"}


def asking(
    call_id: str = "c1",
    *,
    kind: Kind = Kind.APPROVAL,
    tool: str = "write_file",
    arguments: Mapping[str, Json] | None = None,
    **requirement: Any,
) -> NewRequest:
    """A request as a worker opens it; `requirement` as in `Requirement`."""
    required = Requirement(**requirement)
    action: dict[str, Json] = {
        "v": 1,
        "run": "",
        "step": 1,
        "call": call_id,
        "tool": tool,
        "schema": digest.of_schema(SCHEMA).hex(),
        "arguments": dict(arguments or {"path": "/a.txt", "content": "hello\n"}),
        "operands": {},
        "agent": "plain",
        "agent_version": "1",
        "requirement": required.as_json(),
    }
    return NewRequest(
        id=RequestId(ids.new()),
        step=1,
        call_id=call_id,
        kind=kind,
        agent="plain",
        tool=tool,
        requirement=required,
        action=digest.canonical(action),
        digest=digest.of_action(action),
        schema=digest.canonical(SCHEMA),
        schema_hash=digest.of_schema(SCHEMA),
        shape=digest.shape(tool, action["arguments"]),
        context=json.dumps({"said": "I will write it.", "files": {}}).encode(),
    )


def notices_of(conn: Connection, request_id: RequestId) -> Sequence[Notice]:
    """Every notice about a request, oldest first."""
    ids_ = [row[0] for row in conn.execute("SELECT id FROM notices WHERE request_id = %s", (request_id,)).fetchall()]
    return [notice for _, notice in sorted(notices.named(conn, ids_).items())]


def sha256(body: bytes) -> str:
    """As workspaces name their contents."""
    return hashlib.sha256(body).hexdigest()


def bound(new: NewRequest, run_id: RunId, told: Sequence[tuple[NoticeId, PersonId]]) -> NewRequest:
    """The same request, as one of this run, with its notices."""
    action = json.loads(new.action) | {"run": ids.show("run", run_id)}
    return replace(new, action=digest.canonical(action), digest=digest.of_action(action), notify=told)
