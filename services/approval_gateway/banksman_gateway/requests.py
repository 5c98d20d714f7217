"""Requests over HTTP: read with everything that belongs to them, and voted on, one by one or many at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Self

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, StringConstraints, model_validator

from banksman import digest, ids, vault
from banksman.digest import Json
from banksman.errors import BanksmanError, InvalidInput, NotAllowed
from banksman.ids import RequestId, RunId
from banksman.ledger import Connection, lists, views
from banksman.ledger import requests as rows
from banksman.records import Request as Record
from banksman.states import Kind, RequestState, Verdict
from banksman_gateway import decide, door, events, many_votes, problems, shapes, tally, watched, withdraw
from banksman_gateway.auth import Caller, own_only
from banksman_gateway.decide import Ballot, Outcome, Voter
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Parts

router = APIRouter(prefix="/v1", tags=["requests"], route_class=StrictRoute, responses=problems.ALSO)

MOST_VOTES = 100

RequestPath = Annotated[str, Path(examples=["req_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class VoteBody(Body):
    """One vote. `digest` and `revision` say what its voter was shown."""

    verdict: Verdict
    digest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    revision: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
    reason: Annotated[str | None, StringConstraints(max_length=decide.MOST_REASON)] = None
    arguments: dict[str, Json] | None = Field(
        None, description="Edits the call: a JSON merge patch (RFC 7396) onto the arguments that were shown."
    )
    arguments_exact: dict[str, Json] | None = Field(
        None, description="Edits the call: all of its arguments as they are to be. A patch cannot set one to null."
    )
    answer: Json = Field(None, description="For kinds question and external; for `happened`, what to tell the model.")
    stop_run: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.arguments is not None and self.arguments_exact is not None:
            raise ValueError("`arguments` and `arguments_exact` both edit the call: send one of them.")
        given = {"arguments": self.arguments, "arguments_exact": self.arguments_exact, "answer": self.answer}
        for name, value in given.items():
            if value is not None and len(digest.canonical(value)) > digest.MAX_BYTES:
                raise ValueError(f"`{name}` may have {digest.MAX_BYTES:,} bytes as JSON.")
        return self

    def ballot(self) -> Ballot:
        """What `decide` takes."""
        return Ballot(
            verdict=self.verdict,
            digest=bytes.fromhex(self.digest),
            revision=self.revision,
            reason=self.reason,
            arguments=self.arguments,
            exact=self.arguments_exact,
            answer=self.answer,
            stop_run=self.stop_run,
        )


class OneOfMany(VoteBody):
    """One vote among many, with the request that it is on."""

    request_id: str


class Votes(Body):
    """Many votes, each with the digest of what was shown; tier high is decided one by one."""

    votes: Annotated[list[OneOfMany], Field(min_length=1, max_length=MOST_VOTES)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({vote.request_id for vote in self.votes}) < len(self.votes):
            raise ValueError("Each request may be named once.")
        return self


class RequestFilter(Body):
    """Which requests to list."""

    run_id: str | None = None
    state: RequestState | None = None
    kind: Kind | None = None
    agent: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    batch_id: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None


@router.get("/requests", response_model=shapes.Page[shapes.Request])
def list_requests(wanted: Annotated[RequestFilter, Query()], way: ToRead) -> Response:
    """Requests, oldest first."""
    with way.enter() as (conn, caller), vault.leniently():
        found = lists.of_requests(
            conn,
            state=wanted.state,
            kind=wanted.kind,
            run_id=None if wanted.run_id is None else RunId(ids.read("run", wanted.run_id)),
            agent=wanted.agent,
            batch_id=None if wanted.batch_id is None else ids.read("bat", wanted.batch_id),
            requester_id=caller.only_own("requests:read"),
            after=None if wanted.cursor is None else RequestId(ids.read("req", wanted.cursor)),
            limit=wanted.limit + 1,
        )
        shown = show(conn, way.here, found[: wanted.limit], listed=True)
    more = shown[-1].id if len(found) > wanted.limit else None
    page = shapes.Page[shapes.Request](items=shown, next_cursor=more)
    return door.respond(200, door.to_bytes(page))


@router.get("/requests/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def stream_events(request: Request, way: ToRead) -> Response:
    """What happens to requests as it happens (server-sent events), from now on or after `Last-Event-ID`."""
    return await events.of_requests(way, request.headers.get("last-event-id"))


@router.get("/requests/{request_id}", response_model=shapes.Request)
def get_request(request_id: RequestPath, way: ToRead) -> Response:
    """A request as it stands, whole: what its digest covers, who votes, what the run waits for besides."""
    with way.enter() as (conn, caller):
        caller.must("requests:read")
        found = rows.get(conn, RequestId(ids.read("req", request_id)))
        caller.must_see(found.requester_id, f"request {request_id}")
        [shown] = show(conn, way.here, [found])
    return door.respond(200, door.to_bytes(shown))


@router.post("/requests/{request_id}/votes", response_model=shapes.Request)
def vote_on_request(request_id: RequestPath, said: VoteBody, way: ToAct) -> Response:
    """Vote. 200 with the request, still open while votes are missing; 409 with the winner, or with what changed."""
    began = time.time()
    with way.enter() as (conn, caller):
        voter = _voter(caller)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        wanted = RequestId(ids.read("req", request_id))
        outcome = decide.vote(conn, wanted, voter, ballot := said.ballot(), way.here.pen)
        [shown] = show(conn, way.here, [outcome.request])
        response = way.answer(conn, caller, 200, shown)
    tell(way.here, outcome)
    watched.voted(outcome, voter, ballot, began)
    return response


@router.post("/votes", response_model=shapes.Page[shapes.Row])
def vote_on_many(said: Votes, way: ToAct) -> Response:
    """Vote on many requests of tiers low and medium; each row is its own success or problem, in the order sent."""
    with way.enter() as (conn, caller):
        voter = _voter(caller)
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        outcomes = _vote_on_each(conn, way.here, voter, said.votes)
        done = [outcome.request for outcome in outcomes.values() if isinstance(outcome, Outcome)]
        shown = {shape.id: shape for shape in show(conn, way.here, done)}
        page = shapes.Page[shapes.Row](
            items=[_row(vote.request_id, outcomes[vote.request_id], shown) for vote in said.votes]
        )
        response = way.answer(conn, caller, 200, page)
    tell(way.here, *(outcome for outcome in outcomes.values() if isinstance(outcome, Outcome)))
    return response


@router.post("/requests/{request_id}/withdraw", response_model=shapes.Request)
def withdraw_vote(request_id: RequestPath, way: ToAct) -> Response:
    """Take your vote back, as long as nobody has decided. Afterwards you may vote again."""
    with way.enter() as (conn, caller):
        person = caller.must_be_person("takes a vote back")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        wanted = RequestId(ids.read("req", request_id))
        caller.must_see(rows.get(conn, wanted).requester_id, f"request {request_id}")
        request = withdraw.withdraw(conn, wanted, person, way.here.pen)
        [shown] = show(conn, way.here, [request])
        response = way.answer(conn, caller, 200, shown)
    way.here.wire.changed(run=request.run_id, request=request.id)
    return response


def show(conn: Connection, here: Parts, found: Sequence[Record], *, listed: bool = False) -> list[shapes.Request]:
    """Requests with what belongs to them, in a few statements for all; in a list without what people wrote below."""
    around = views.around(conn, found, remarks=not listed)
    cast = [(request, [vote for vote, _ in around[request.id].votes], around[request.id].decision) for request in found]
    tallies = tally.of_each(conn, cast, here.link_keys)
    turns = {(request.run_id, request.segment): request for request in found}
    covers = {turn: shapes.turn_cover(request, around[request.id]) for turn, request in turns.items()}
    return [
        shapes.request(
            request, around[request.id], tallies[request.id], here.seal.head, covers[request.run_id, request.segment]
        )
        for request in found
    ]


def tell(here: Parts, *outcomes: Outcome) -> None:
    """After the commit: wake workers for runs that wait for nothing more, the notifier, and whoever watches."""
    here.wire.run(*(outcome.resume for outcome in outcomes if outcome.resume is not None))
    here.wire.deliver([notice for outcome in outcomes for notice in outcome.told])
    for outcome in outcomes:
        here.wire.changed(run=outcome.request.run_id, request=outcome.request.id)


def _voter(caller: Caller) -> Voter:
    if caller.person is None:
        if not caller.has("requests:answer"):  # before a conflict tells it who has decided what
            raise NotAllowed("API keys cannot vote: people do.")
        return Voter("key", key=caller.key)
    caller.must("votes")
    if own_only(caller.person) is not None:  # before anything is told of a request that is not theirs to see
        raise NotAllowed("You are not a reviewer, so you cannot decide.")
    return Voter("token", person=caller.person)


def _vote_on_each(
    conn: Connection, here: Parts, voter: Voter, votes: Sequence[OneOfMany]
) -> dict[str, Outcome | BanksmanError]:
    outcomes: dict[str, Outcome | BanksmanError] = {}
    ballots: dict[RequestId, Ballot] = {}
    for vote in votes:
        try:
            ballots[RequestId(ids.read("req", vote.request_id))] = vote.ballot()
        except InvalidInput as error:
            outcomes[vote.request_id] = error
    cast = many_votes.cast(conn, voter, ballots, here.pen)
    return outcomes | {ids.show("req", request_id): outcome for request_id, outcome in cast.items()}


def _row(request_id: str, outcome: Outcome | BanksmanError, shown: dict[str, shapes.Request]) -> shapes.Row:
    if isinstance(outcome, Outcome):
        return shapes.Row(request_id=request_id, status=200, request=shown[ids.show("req", outcome.request.id)])
    problem = problems.of(outcome)
    body: dict[str, Any] = problem.as_json()
    return shapes.Row(request_id=request_id, status=problem.status, problem=body)
