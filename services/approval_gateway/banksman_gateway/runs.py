"""Runs over HTTP: submitted here, read, stopped, and given another chance when stuck."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from banksman import digest, ids, vault
from banksman.digest import Json
from banksman.errors import Conflict, Gone, InvalidInput, NotAllowed, NotFound
from banksman.ids import PersonId, RunId
from banksman.ledger import Connection, agents, audit, lists, rescue, snapshots, staff, stops, views
from banksman.ledger import runs as rows
from banksman.records import Event, NewRun, Run, Snapshot
from banksman.scopes import Scope
from banksman.states import FINAL, RunStatus
from banksman_gateway import door, events, problems, shapes, transcript, watched
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import PRINTABLE, Body, Name, StrictRoute

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=StrictRoute, responses=problems.ALSO)

MOST_REASON = 4000
"""How many characters the reason may have for which a run is given up."""
_MOST_METADATA = 64 * 1024
# What the ledger's table holds too: a time that Python cannot read back would break every list that it stands in.
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

RunPath = Annotated[str, Path(examples=["run_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class Submission(Body):
    """A run to start."""

    agent: Name
    prompt: Annotated[str, Field(min_length=1, max_length=500_000)]
    metadata: dict[str, Json] = Field(default_factory=dict[str, Json])
    tags: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=list[str])
    priority: Annotated[int, Field(ge=0, le=9, strict=True)] = 5
    finish_by: Annotated[AwareDatetime, Field(ge=_EARLIEST, lt=_LATEST)] | None = None
    requester: Annotated[
        str | None,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=254, pattern=PRINTABLE),
        Field(description="Whom the run is for. Only for a key with the scope runs:submit-as."),
    ] = None


class Failure(Body):
    """Why a stuck run is given up."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_REASON)]


class RunFilter(Body):
    """Which runs to list; `state` says the same as `status`."""

    status: RunStatus | None = None
    state: RunStatus | None = None
    agent: Name | None = None
    batch_id: str | None = None
    parent_id: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None

    @model_validator(mode="after")
    def _one_status(self) -> RunFilter:
        if self.status and self.state and self.status is not self.state:
            raise ValueError("`status` and `state` are the same filter and say different things.")
        return self


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who asks for a run: the name that reviewers read, the person it stands for, and the credential's own name."""

    requester: str
    requester_id: PersonId | None
    actor: str


def submit(conn: Connection, asked: Submission, by: Submitter, *, hint: timedelta) -> Run:
    """Nothing → queued, once a worker has announced the agent. The caller wakes a worker after its commit."""
    new = new_run(asked, by, agents.names(conn))
    run = rows.create(conn, new, hint=hint)
    audit.append(conn, Event(by.actor, "run.submitted", new.id, body={"agent": new.agent, "requester": new.requester}))
    return run


def new_run(
    asked: Submission, by: Submitter, known: Collection[str], *, key: str | None = None, line: int | None = None
) -> NewRun:
    """What is asked for, once its agent is one of those that workers bring; `InvalidInput` otherwise."""
    if asked.agent not in known:
        brought = f"Workers bring: {', '.join(sorted(known))}." if known else "No worker has brought an agent yet."
        raise InvalidInput(f"There is no agent {asked.agent!r}. {brought}")
    if len(digest.canonical(asked.metadata)) > _MOST_METADATA:
        raise InvalidInput(f"The metadata may have {_MOST_METADATA:,} bytes as JSON.")
    return NewRun(
        id=RunId(ids.new()),
        agent=asked.agent,
        prompt=asked.prompt,
        requester=by.requester,
        requester_id=by.requester_id,
        metadata=asked.metadata,
        tags=asked.tags,
        priority=asked.priority,
        finish_by=asked.finish_by,
        key=key,
        line=line,
    )


def cancel(conn: Connection, run_id: RunId, actor: str) -> Run:
    """Queued, waiting or stuck → cancelled, with everything it waited for; a running one is stopped by its worker."""
    status = rows.lock(conn, run_id)
    if status in FINAL and status is not RunStatus.CANCELLED:
        raise Conflict(f"This run is over: it has {status.value}.", {"status": status.value})
    stops.stop(conn, [run_id], actor)
    with vault.leniently():
        return rows.get(conn, run_id)


def retry(conn: Connection, run_id: RunId, actor: str, *, hint: timedelta) -> tuple[Run, int | None]:
    """Stuck → queued with fresh attempts, or → waiting while something is open; the run, and the segment to wake."""
    status = rows.lock(conn, run_id)
    if not rescue.retry(conn, run_id):
        raise Conflict(f"Only a stuck run is tried again; this one is {status.value}.", {"status": status.value})
    segment = rows.wake(conn, run_id, hint=hint)
    audit.append(conn, Event(actor, "run.retried", run_id))
    return rows.get(conn, run_id), segment


def give_up(conn: Connection, run_id: RunId, actor: str, *, who: str, reason: str) -> Run:
    """Stuck → failed, with the person's reason before the last error, and everything it waited for cancelled."""
    status = rows.lock(conn, run_id)
    last = rows.get(conn, run_id).error
    error = f"{who} failed this run: {reason}" + (f"\nIts last error: {last}" if last else "")
    if not rescue.give_up(conn, run_id, error=error):
        raise Conflict(f"Only a stuck run is failed by hand; this one is {status.value}.", {"status": status.value})
    audit.append(conn, Event(actor, "run.failed", run_id, body={"because": "a person says so"}))
    stops.close(conn, [run_id], actor)
    return rows.get(conn, run_id)


def conversation(kept: Sequence[Snapshot]) -> list[Json]:
    """The messages of a run: each snapshot keeps the first ones before it and adds its own."""
    messages: list[Json] = []
    for snapshot in kept:
        messages[snapshot.kept :] = json.loads(snapshot.messages)
    return messages


@router.post("", status_code=201, response_model=shapes.Run)
def submit_run(asked: Submission, way: ToAct) -> Response:
    """Submit a run. An agent that no worker has announced is refused with the names of those that were."""
    here, began = way.here, time.time()
    with way.enter() as (conn, caller):
        caller.must("runs:submit")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        run = submit(conn, asked, submitter(conn, asked.requester, caller), hint=here.hint)
        response = way.answer(conn, caller, 201, shapes.run(run))
    here.wire.run((run.id, run.segment))
    here.wire.changed(run=run.id)
    watched.submitted(run, began)
    return response


@router.get("", response_model=shapes.Page[shapes.Run])
def list_runs(wanted: Annotated[RunFilter, Query()], way: ToRead) -> Response:
    """Runs, newest first."""
    with way.enter() as (conn, caller), vault.leniently():
        found = lists.of_runs(
            conn,
            status=wanted.status or wanted.state,
            agent=wanted.agent,
            parent_id=None if wanted.parent_id is None else RunId(ids.read("run", wanted.parent_id)),
            batch_id=None if wanted.batch_id is None else ids.read("bat", wanted.batch_id),
            requester_id=caller.only_own("runs:read"),
            before=None if wanted.cursor is None else RunId(ids.read("run", wanted.cursor)),
            limit=wanted.limit + 1,
        )
    shown = [shapes.run(run) for run in found[: wanted.limit]]
    more = shown[-1].id if len(found) > wanted.limit else None
    return door.respond(200, door.to_bytes(shapes.Page[shapes.Run](items=shown, next_cursor=more)))


@router.get("/{run_id}", response_model=shapes.Run)
def get_run(run_id: RunPath, way: ToRead) -> Response:
    """A run as it stands."""
    with way.enter() as (conn, caller):
        run = _seen(conn, caller, run_id)
    return door.respond(200, door.to_bytes(shapes.run(run)))


@router.get("/{run_id}/messages", response_model=shapes.Page[Json])
def list_messages(run_id: RunPath, way: ToRead) -> Response:
    """The conversation so far, as pydantic-ai's messages; for people who did not ask for it, secrets are covered."""
    with way.enter() as (conn, caller):
        run = _kept(conn, caller, run_id)
        kept = snapshots.load(conn, run.id)
        listed = agents.find(conn, run.agent)
    talk = conversation(kept)
    if caller.person is not None and caller.person.id != run.requester_id:
        talk = transcript.covered(talk, run.agent, transcript.sensitive(listed))
    page = shapes.Page[Json](items=talk)
    return door.respond(200, door.to_bytes(page))


@router.get("/{run_id}/files", response_model=shapes.Page[shapes.File])
def list_files(run_id: RunPath, way: ToRead) -> Response:
    """The files of the run's workspace, as of its last snapshot."""
    with way.enter() as (conn, caller):
        run = _kept(conn, caller, run_id)
        manifest = workspace(conn, run.id)
        sizes = views.sizes(conn, run.id, set(manifest.values()))
    files = [shapes.File(path=path, size=sizes.get(name, 0), sha256=name) for path, name in sorted(manifest.items())]
    return door.respond(200, door.to_bytes(shapes.Page[shapes.File](items=files)))


@router.get(
    "/{run_id}/files/{path:path}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def get_file(run_id: RunPath, path: str, way: ToRead) -> Response:
    """One file, byte for byte; a browser saves it and never shows it."""
    with way.enter() as (conn, caller):
        run = _kept(conn, caller, run_id)
        body = file(conn, run.id, path)
    name = quote(path.rpartition("/")[2] or "file", safe="")
    return Response(
        body,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


@router.get("/{run_id}/timeline", response_model=shapes.Page[shapes.Moment])
def list_timeline(run_id: RunPath, way: ToRead) -> Response:
    """Everything that happened to the run, in order: moves, votes, tool calls, messages to reviewers."""
    with way.enter() as (conn, caller):
        run = _seen(conn, caller, run_id)
        happened = views.timeline(conn, run.id)
    page = shapes.Page[shapes.Moment](items=[shapes.moment(item) for item in happened])
    return door.respond(200, door.to_bytes(page))


@router.get(
    "/{run_id}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "Over; nothing is new."}},
)
async def stream_events(run_id: RunPath, request: Request, way: ToRead) -> Response:
    """What happens to the run as it happens (server-sent events), from the beginning or after `Last-Event-ID`."""
    return await events.of_run(way, run_id, request.headers.get("last-event-id"))


@router.post("/{run_id}/cancel", response_model=shapes.Run)
def cancel_run(run_id: RunPath, way: ToAct) -> Response:
    """Stop a run. What it waits for is cancelled; a segment under way is stopped by its worker soon."""

    def move(conn: Connection, run: Run, caller: Caller) -> tuple[Run, int | None]:
        return cancel(conn, run.id, caller.actor), None

    return _steer(run_id, way, "runs:cancel", move)


@router.post("/{run_id}/retry", response_model=shapes.Run)
def retry_run(run_id: RunPath, way: ToAct) -> Response:
    """Give a stuck run another chance: a person's to say, never a machine's."""

    def move(conn: Connection, run: Run, caller: Caller) -> tuple[Run, int | None]:
        return retry(conn, run.id, caller.actor, hint=way.here.hint)

    return _steer(run_id, way, "runs:submit", move, by_people=True)


@router.post("/{run_id}/fail", response_model=shapes.Run)
def fail_run(run_id: RunPath, why: Failure, way: ToAct) -> Response:
    """Give a stuck run up, saying why: a person's to say, never a machine's."""

    def move(conn: Connection, run: Run, caller: Caller) -> tuple[Run, int | None]:
        assert caller.person is not None
        return give_up(conn, run.id, caller.actor, who=caller.person.email, reason=why.reason), None

    return _steer(run_id, way, "runs:cancel", move, by_people=True)


Steering = Callable[[Connection, Run, Caller], tuple[Run, int | None]]


def _steer(run_id: str, way: door.Once, scope: Scope, move: Steering, *, by_people: bool = False) -> Response:
    """One move of a run by a caller who may; the run after it, and a worker woken for the segment that it names."""
    with way.enter() as (conn, caller):
        if by_people and caller.person is None:
            raise NotAllowed("A stuck run waits for a person: use a personal token.")
        caller.must(scope, "votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        with vault.leniently():  # a value that cannot be read keeps nobody from stopping its run
            run = _seen(conn, caller, run_id, scope=None)
        caller.must_steer(run)
        run, segment = move(conn, run, caller)
        response = way.answer(conn, caller, 200, shapes.run(run))
    if segment is not None:
        way.here.wire.run((run.id, segment))
    way.here.wire.changed(run=run.id)
    return response


def workspace(conn: Connection, run_id: RunId) -> Mapping[str, str]:
    """Path → SHA-256 in hex of each file that the run has now."""
    return views.state(conn, run_id).get("workspace", {})


def file(conn: Connection, run_id: RunId, path: str) -> bytes:
    """The bytes of one file; paths are names in a list here, so `..` leads nowhere."""
    manifest = workspace(conn, run_id)
    name = manifest.get(path) or manifest.get(f"/{path}")
    if name is None:
        raise NotFound(f"The run has no file {path[:200]!r}.")
    found = snapshots.blobs(conn, run_id, [name])
    if name not in found:
        raise NotFound(f"The content of {path[:200]!r} is gone.")
    return found[name]


def _seen(conn: Connection, caller: Caller, run_id: str, *, scope: Scope | None = "runs:read") -> Run:
    """The run, for a caller who may see it; for the others there is none."""
    if scope is not None:
        caller.must(scope)
    run = rows.get(conn, RunId(ids.read("run", run_id)))
    caller.must_see(run.requester_id, f"run {run_id}")
    return run


def _kept(conn: Connection, caller: Caller, run_id: str) -> Run:
    """The same, where its content has not been erased."""
    run = _seen(conn, caller, run_id)
    if run.erased_at is not None:
        raise Gone(run.error or "")
    return run


def submitter(conn: Connection, named_requester: str | None, caller: Caller) -> Submitter:
    """Whose run it is: the named person's with `runs:submit-as`, else the credential's owner's, else the key's own."""
    if caller.person is not None and caller.person.roles == frozenset(("auditor",)):
        raise NotAllowed("An auditor reads everything and changes nothing: submit with another role.")
    if named_requester is not None:
        if caller.person is not None:  # or they could approve what they asked for in another's name
            raise NotAllowed("People submit in their own name; only a key with the scope runs:submit-as names another.")
        caller.must("runs:submit-as")
        named = staff.by_email(conn, named_requester)
        if named is not None:
            return Submitter(named.email, named.id, caller.actor)
        return Submitter(named_requester, None, caller.actor)
    owner = caller.key.person
    if owner is not None:
        return Submitter(owner.email, owner.id, caller.actor)
    return Submitter(caller.key.name, None, caller.actor)
