"""The policy over HTTP: read, its versions, and an administrator's upload, signed here as decisions are.

An upload is checked as a whole first: its text, and against the people there are whether every rule's requirement can
be met. It voids nothing: what is open keeps what was frozen, and a worker asks again only where the new version is
stricter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from banksman import ids, rule_file, standing_policy
from banksman.errors import BanksmanError, Changed, NotAllowed
from banksman.ledger import Connection, audit, staff
from banksman.ledger import policies as rows
from banksman.records import Event, Person
from banksman.standing_policy import Standing
from banksman_gateway import auth, door, problems
from banksman_gateway.auth import Caller
from banksman_gateway.door import ToAct, ToRead
from banksman_gateway.intake import Body, StrictRoute
from banksman_gateway.parts import Parts
from banksman_gateway.shapes import Page, Shape

router = APIRouter(prefix="/v1/policy", tags=["policy"], route_class=StrictRoute, responses=problems.ALSO)

Text = Annotated[str, Field(max_length=rule_file.MAX_BYTES, examples=['[[rule]]\nname = "…"'])]


class Policy(Shape):
    """A policy. `problem` says why one cannot be used; then every call is asked at the highest tier."""

    version: str = Field(description="As requirements name it: v3, file 1a2b…, or default when there are no rules.")
    source: str = Field(description="uploaded, file or settings")
    number: int | None
    text: str | None
    sha256: str | None
    by: str | None
    at: datetime | None
    problem: str | None


class Upload(Body):
    """`after` is the number of the version that this one was made from; another one by now is a conflict."""

    text: Text
    after: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] | None = None


class Versions(Body):
    """Which page of versions."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(pattern="^[0-9]{1,9}$")] | None = None


def in_force(conn: Connection, here: Parts) -> tuple[Standing, Policy]:
    """The policy as the workers have it, with its text."""
    people = staff.everybody(conn)
    try:
        version = rows.current(conn)
    except BanksmanError as error:
        doubt = str(error)
        unreadable = Policy(version=standing_policy.REFUSED, source="uploaded", problem=doubt, **_NOTHING)
        return Standing(doubt=doubt, people=people), unreadable
    if version is not None:
        shape, standing = _read(version, here)
        return Standing(standing.rules, standing.doubt, people), shape
    rules = here.file_rules
    if rules is None:
        return Standing(people=people), Policy(version="default", source="settings", problem=None, **_NOTHING)
    shape = Policy(
        version=rules.version,
        source="file",
        number=None,
        text=rules.text,
        sha256=_hash(rules.text),
        by=None,
        at=None,
        problem=None,
    )
    return Standing(rules, people=people), shape


def upload(conn: Connection, here: Parts, person: Person | None, text: str, *, after: int | None = None) -> Policy:
    """Nothing → a signed version, in force from the commit on."""
    if person is None or "admin" not in person.roles:
        raise NotAllowed("Only an administrator uploads a policy, as themselves.")
    rules = rule_file.read(text)
    rule_file.check_reach(rules, staff.everybody(conn))
    number = rows.next_number(conn)
    if after is not None and after != number - 1:
        raise Changed(
            f"Version {number - 1} is in force by now, and yours was made from version {after}. Look at it first.",
            {"version": number - 1},
        )
    author = ids.show("per", person.id)
    signed = here.signer.sign(standing_policy.statement(number, text, author=author, at=datetime.now(UTC)), "policy")
    rows.append(conn, number, signed, person.id)
    body = {"version": number, "sha256": _hash(text), "rules": len(rules.rules), "kid": signed.kid}
    audit.append(conn, Event(author, "policy.uploaded", body=body))
    return _read(rows.get(conn, number), here)[0]


@router.get("", response_model=Policy)
def get_policy(way: ToRead) -> Response:
    """The policy in force."""
    with way.enter() as (conn, caller):
        must_read(caller)
        _, shape = in_force(conn, way.here)
    return door.respond(200, door.to_bytes(shape))


@router.get("/versions", response_model=Page[Policy])
def list_versions(wanted: Annotated[Versions, Query()], way: ToRead) -> Response:
    """Every version that was uploaded, newest first."""
    with way.enter() as (conn, caller):
        must_read(caller)
        before = None if wanted.cursor is None else int(wanted.cursor)
        found = rows.versions(conn, before=before, limit=wanted.limit + 1)
    shown = [_read(version, way.here)[0] for version in found[: wanted.limit]]
    more = str(shown[-1].number) if len(found) > wanted.limit else None
    return door.respond(200, door.to_bytes(Page[Policy](items=shown, next_cursor=more)))


@router.get("/versions/{number}", response_model=Policy)
def get_version(number: Annotated[int, Path(ge=1, le=2**31 - 1)], way: ToRead) -> Response:
    """One version."""
    with way.enter() as (conn, caller):
        must_read(caller)
        shape, _ = _read(rows.get(conn, number), way.here)
    return door.respond(200, door.to_bytes(shape))


@router.post("", response_model=Policy)
def upload_policy(said: Upload, way: ToAct) -> Response:
    """Put a policy in force. Administrators only, with a personal token; what is wrong with a text is said in full."""
    with way.enter() as (conn, caller):
        caller.must("policy")
        if (kept := way.replay(conn, caller)) is not None:
            return kept
        shape = upload(conn, way.here, caller.person, said.text, after=said.after)
        response = way.answer(conn, caller, 200, shape)
    with door.transaction(way.here) as conn:
        way.here.secrecy.refresh(conn)
    return response


def must_read(caller: Caller) -> None:
    """`NotAllowed` unless the caller sees everybody's requests, and so may see the rules for them."""
    caller.must("requests:read")
    if auth.own_only(caller.person) is not None:
        raise NotAllowed("Only people with a role read the policy.")


_NOTHING: dict[str, Any] = {"number": None, "text": None, "sha256": None, "by": None, "at": None}


def _read(version: rows.Version, here: Parts) -> tuple[Policy, Standing]:
    text, doubt, rules = None, None, None
    try:
        rules, text = standing_policy.verified(version.number, version.signed, here.verifier)
    except BanksmanError as error:
        doubt = str(error)
    except (KeyError, TypeError, ValueError):
        doubt = "What was signed is no policy that this release can read."
    shape = Policy(
        version=f"v{version.number}",
        source="uploaded",
        number=version.number,
        text=text,
        sha256=None if text is None else _hash(text),
        by=version.author,
        at=version.created_at,
        problem=doubt,
    )
    return shape, Standing(rules, doubt)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
