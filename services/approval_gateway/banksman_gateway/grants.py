"""Standing grants over HTTP: given by a person on a request that was approved at tier low, listed, and revoked.

None reaches further than its owner could by voting: who may not decide the request, or could not decide it alone,
cannot give one. The run's requester never can.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field, StringConstraints

from banksman import digest, durations, ids, masks, quorum
from banksman import grants as standing
from banksman.digest import Json
from banksman.errors import BanksmanError, Conflict, InvalidInput, NotAllowed, NotGenuine
from banksman.ids import GrantId, RequestId
from banksman.ledger import Connection, audit, decisions, people, requests, runs
from banksman.ledger import grants as rows
from banksman.policy import Call
from banksman.records import Event, Grant, Person, Request, StoredGrant
from banksman.signing import Signer, Verifier
from banksman.states import Kind, RequestState, Tier
from banksman_gateway import agents, door, policies, problems, stand_ins, voters
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.shapes import Page, Shape

router = APIRouter(prefix="/v1/grants", tags=["grants"], route_class=StrictRoute, responses=problems.ALSO)

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
GrantPath = Annotated[str, Path(examples=["gra_0192f0c1a2b37c4d8e5f60718293a4b5"])]


class Wish(Body):
    """The same call again, at most so often and so long. `free` names arguments that may differ."""

    request_id: str
    most: Annotated[int, Field(ge=1, le=standing.MOST, strict=True)]
    lasts: Annotated[str, Field(max_length=20, examples=["8h"])] = "8h"
    free: Annotated[list[Name], Field(max_length=50)] = Field(default_factory=list[str])


class Listing(Body):
    """Which page of grants; the `live` ones may let a call through still."""

    live: bool = False
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None


class GrantShape(Shape):
    """A standing grant. `state` is standing, used up, over, revoked, or refused: one that cannot be verified."""

    id: str
    state: str
    owner: str
    agent: str
    agent_version: str | None
    tool: str
    request_id: str | None
    batch_id: str | None
    requester: str | None
    arguments: dict[str, Json] | None = Field(description="What must be equal.")
    operands: dict[str, Json] | None = Field(description="The files that the call refers to, by SHA-256.")
    free: list[str]
    most: int
    used: int
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


def give(conn: Connection, signer: Signer, verifier: Verifier, person: Person | None, wish: Wish) -> GrantShape:
    """Nothing → a standing grant of this person."""
    if person is None:
        raise NotAllowed("People give standing grants, machines do not.")
    request = requests.get(conn, RequestId(ids.read("req", wish.request_id)))
    _must_be_entitled(conn, request, people.get(conn, person.id))
    statement = _approved(conn, verifier, request)
    action = digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES)
    if digest.of_action(action) != request.digest or statement["digest"] != request.digest.hex():
        raise NotGenuine("The decision on this request does not cover what is stored. Nothing can be granted on it.")
    if unknown := sorted(set(wish.free) - set(action["arguments"])):
        raise InvalidInput(f"The call has no argument {unknown[0]!r} that could be left free.")
    lifetime = durations.read(wish.lasts)
    if lifetime.total_seconds() > standing.MAX_SECONDS:
        raise InvalidInput("A standing grant lasts for at most 7 days.")
    batch_id = runs.get(conn, request.run_id).batch_id
    call = Call(
        agent=action["agent"],
        tool=action["tool"],
        arguments=action["arguments"],
        requester=request.requester,
        batch="" if batch_id is None else ids.show("bat", batch_id),
        agent_version=action["agent_version"],
        schema=action["schema"],
        operands=action["operands"],
    )
    grant_id, until = GrantId(ids.new()), rows.until(conn, lifetime)
    said = standing.statement(
        grant_id,
        call,
        request.requirement,
        request=wish.request_id,
        owner=(person.id, person.email),
        free=frozenset(wish.free),
        most=wish.most,
        expires_at=until,
        sensitive=action.get(masks.SENSITIVE, ()),
    )
    signed = signer.sign(said, "grant")
    bound = said["bound"]
    grant = Grant(
        grant_id,
        person.id,
        person.email,
        request.requirement,
        bound,
        frozenset(wish.free),
        wish.most,
        until,
        signed.signature,
        sensitive=action.get(masks.SENSITIVE, ()),
    )
    rows.give(conn, grant, signed, request_id=request.id)
    body: dict[str, Json] = {"grant": ids.show("gra", grant_id), "tool": call.tool, "most": wish.most,
                             "expires_at": until.isoformat(timespec="seconds"), "free": sorted(wish.free)}  # fmt: skip
    audit.append(conn, Event(ids.show("per", person.id), "grant.given", request.run_id, request.id, body))
    return shape(rows.get(conn, grant_id), verifier)


def revoke(conn: Connection, verifier: Verifier, person: Person | None, wanted: GrantId) -> GrantShape:
    """Standing → revoked, by a person who may; as it is where it was so already."""
    stored = rows.get(conn, wanted)
    if person is None or not may_revoke(person, stored):
        raise NotAllowed("Only its owner, an operator or an administrator revokes a standing grant.")
    if rows.revoke(conn, wanted, person.id):
        body: dict[str, Json] = {"grant": ids.show("gra", wanted)}
        audit.append(conn, Event(ids.show("per", person.id), "grant.revoked", body=body))
    return shape(rows.get(conn, wanted), verifier)


def may_revoke(person: Person, stored: StoredGrant) -> bool:
    """Whether this person may take this grant back."""
    return person.id == stored.owner_id or bool(person.roles & agents.OPERATORS)


@router.post("", response_model=GrantShape)
def give_grant(wish: Wish, way: ToAct) -> Response:
    """Let the call of an approved request be made again without asking: tier low only, and never for one's own runs."""
    with way.enter() as (conn, caller):
        caller.must("votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        return way.answer(conn, caller, 200, give(conn, way.here.signer, way.here.verifier, caller.person, wish))


@router.get("", response_model=Page[GrantShape])
def list_grants(wanted: Annotated[Listing, Query()], way: ToRead) -> Response:
    """Standing grants, newest first."""
    with way.enter() as (conn, caller):
        policies.must_read(caller)
        before = None if wanted.cursor is None else GrantId(ids.read("gra", wanted.cursor))
        found = rows.listed(conn, before=before, limit=wanted.limit + 1, live=wanted.live)
    shown = [shape(stored, way.here.verifier) for stored in found[: wanted.limit]]
    more = shown[-1].id if len(found) > wanted.limit else None
    return door.respond(200, door.to_bytes(Page[GrantShape](items=shown, next_cursor=more)))


@router.post("/{grant_id}/revoke", response_model=GrantShape)
def revoke_grant(grant_id: GrantPath, way: ToAct) -> Response:
    """Take a grant back at once. Its owner may, and every operator and administrator."""
    with way.enter() as (conn, caller):
        caller.must("votes")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        wanted = GrantId(ids.read("gra", grant_id))
        return way.answer(conn, caller, 200, revoke(conn, way.here.verifier, caller.person, wanted))


def shape(stored: StoredGrant, verifier: Verifier) -> GrantShape:
    """A grant as it is shown: what it covers is what was signed, and nothing where that cannot be verified."""
    grant, request_id = None, None
    try:
        grant = standing.verified(stored, verifier)
        request_id = str(digest.parse(stored.signed.statement, limit=4 * digest.MAX_BYTES)["request"])
    except BanksmanError:
        pass
    bound = {} if grant is None else dict(grant.bound)
    cover = masks.of({**bound, masks.SENSITIVE: [] if grant is None else list(grant.sensitive)})
    return GrantShape(
        id=ids.show("gra", stored.id),
        state=_state(stored, grant),
        owner=stored.owner,
        agent=stored.agent,
        agent_version=bound.get("agent_version"),
        tool=stored.tool,
        request_id=request_id,
        batch_id=bound.get("batch") or None,
        requester=bound.get("requester"),
        arguments=masks.plain(cover.value(bound.get("arguments"))),
        operands=bound.get("operands"),
        free=sorted(bound.get("free", ())),
        most=stored.most,
        used=stored.used,
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        revoked_at=stored.revoked_at,
    )


def action(stored: StoredGrant, verifier: Verifier) -> Mapping[str, Json]:
    """What a grant covers, as an action to be rendered."""
    grant = standing.verified(stored, verifier)
    return {**grant.bound, masks.SENSITIVE: list(grant.sensitive)}


def _must_be_entitled(conn: Connection, request: Request, person: Person) -> None:
    requirement, at_once = request.requirement, timedelta()
    if request.kind is not Kind.APPROVAL or request.tier is not Tier.LOW:
        raise NotAllowed("Standing grants are for tool calls at tier low only.")
    who = stand_ins.standing(conn, request, [person], ())[person.id]
    if (why := voters.hindrance(request, requirement, who, "token")) is not None:
        raise NotAllowed(why)
    own = quorum.standing(person)
    if own.isdisjoint(quorum.audience(requirement, at_once)):
        raise NotAllowed("You could decide this in somebody's place only, so it is not yours to grant.")
    if not quorum.met(requirement, [own], at_once):
        raise NotAllowed("More people than you must agree to this, so you cannot grant it alone.")


def _approved(conn: Connection, verifier: Verifier, request: Request) -> dict[str, Json]:
    """The signed decision that approved it."""
    decision = decisions.get(conn, request.id)
    if request.state is not RequestState.APPROVED or decision is None:
        raise Conflict(
            f"The request is {request.state.value}: a standing grant follows an approval.",
            {"state": request.state.value},
        )
    statement = verifier.verify(decision.signed)
    if statement["request"] != ids.show("req", request.id) or statement["verdict"] != RequestState.APPROVED.value:
        raise NotGenuine("The stored decision belongs to another request.")
    return statement


def _state(stored: StoredGrant, grant: Grant | None) -> str:
    if grant is None:
        return "refused"
    if stored.revoked_at is not None:
        return "revoked"
    if stored.expired:
        return "over"
    return "used up" if stored.used >= grant.most else "standing"
