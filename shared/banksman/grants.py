"""Standing grants: a person's word that the same call may be made again, so often, until then.

A grant is a statement signed by the gateway. It belongs to the person who gave it and is good for tier low alone, for
one agent in one version, one tool with one schema, the files that the call named, and arguments that are equal to those
of the approved request, but for the ones that the person left free. It holds for runs of the same requester and, when
the request came from a batch, for that batch only. How often it was used is counted where a call starts, in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from banksman import digest, ids, policy
from banksman.digest import Json
from banksman.errors import NotGenuine
from banksman.ids import GrantId, PersonId
from banksman.policy import Call
from banksman.records import Grant, Requirement, StoredGrant
from banksman.signing import Verifier

MOST = 1000
"""So many calls may one grant cover."""
MAX_SECONDS = 7 * 86400


def fits(grant: Grant, call: Call) -> bool:
    """Whether this is the call that it was given for."""
    return digest.canonical(bound_to(call, grant.free)) == digest.canonical(dict(grant.bound))


def covers(grant: Grant, requirement: Requirement) -> bool:
    """Whether what is asked today is no more than what its owner's approval met then."""
    return policy.stricter(requirement, grant.requirement) is None


def bound_to(call: Call, free: frozenset[str]) -> dict[str, Json]:
    """What must be the same for a call to be the same again."""
    return {
        "agent": call.agent,
        "agent_version": call.agent_version,
        "tool": call.tool,
        "schema": call.schema,
        "operands": dict(call.operands),
        "arguments": {name: value for name, value in call.arguments.items() if name not in free},
        "free": sorted(free & call.arguments.keys()),
        "requester": call.requester.casefold(),
        "batch": call.batch,
    }


def statement(
    grant_id: GrantId,
    call: Call,
    requirement: Requirement,
    *,
    request: str,
    owner: tuple[PersonId, str],
    free: frozenset[str],
    most: int,
    expires_at: datetime,
    sensitive: Sequence[str] = (),
) -> dict[str, Json]:
    """What the gateway signs."""
    return {
        "v": 1,
        "grant": ids.show("gra", grant_id),
        "request": request,
        "owner": ids.show("per", owner[0]),
        "owner_email": owner[1],
        "requirement": requirement.as_json(),
        "bound": bound_to(call, free),
        "most": most,
        "expires_at": expires_at.isoformat(),
        **({"sensitive": list(sensitive)} if sensitive else {}),
    }


def verified(stored: StoredGrant, verifier: Verifier) -> Grant:
    """The grant, once its signature holds and it is the one of its row; `NotGenuine` otherwise."""
    said = verifier.verify(stored.signed, "grant")
    try:
        found = Grant(
            id=GrantId(ids.read("gra", str(said["grant"]))),
            owner_id=PersonId(ids.read("per", str(said["owner"]))),
            owner=str(said["owner_email"]),
            requirement=Requirement.from_json(said["requirement"]),
            bound=said["bound"],
            free=frozenset(said["bound"]["free"]),
            most=int(said["most"]),
            expires_at=datetime.fromisoformat(str(said["expires_at"])),
            signature=stored.signed.signature,
            sensitive=tuple(map(str, said.get("sensitive", ()))),
        )
    except (KeyError, TypeError, ValueError):
        raise NotGenuine("What was signed is no grant that this release can read.") from None
    if found.id != stored.id:
        raise NotGenuine("The signed grant belongs to another row.")
    return found
