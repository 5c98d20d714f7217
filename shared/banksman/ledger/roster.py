"""The roster: every change of who there is and what they may do, with its rules and its line in the audit log.

Who is newly given a role or a group counts at once for what is opened from then on, and for what was open before only
after a while (`fresh`): nobody is made a reviewer to approve what already waits. Whoever is changed, disabled or
removed is signed out everywhere, in the same transaction; what nobody is left to decide is looked at at once.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from banksman import addresses, ids, quorum
from banksman.digest import Json
from banksman.errors import Conflict, InvalidInput, NotFound
from banksman.ids import PersonId
from banksman.ledger import Connection, audit, keys, people, silence, staff
from banksman.records import Event, Person

MOST_NAME = 100
MOST_GROUPS = 50


def add(
    conn: Connection,
    actor: str,
    email: str,
    *,
    name: str,
    roles: Collection[str],
    groups: Collection[str],
    membership: timedelta,
) -> Person:
    """Nobody → a person who may sign in; `Conflict` when the address is somebody's."""
    address = addresses.checked(email)
    wanted = _checked(name or address.partition("@")[0], roles, groups)
    staff.hold(conn)
    if (known := staff.by_email(conn, address)) is not None:
        state = "disabled: enable them" if known.disabled else "here already: change them"
        raise Conflict(f"{known.email} is {state}.", {"person": ids.show("per", known.id)})
    made = staff.upsert(conn, address, name=wanted[0], roles=wanted[1], groups=wanted[2])
    return _note(conn, actor, "reviewer.added", None, made, membership)


def change(
    conn: Connection,
    actor: str,
    person_id: PersonId,
    *,
    name: str | None = None,
    roles: Collection[str] | None = None,
    groups: Collection[str] | None = None,
    membership: timedelta,
) -> Person:
    """A person → the same with another name, other roles or groups; what is not given stays."""
    staff.hold(conn)
    before = _known(conn, person_id)
    wanted = _checked(
        before.name if name is None else name,
        before.roles if roles is None else roles,
        before.groups if groups is None else groups,
    )
    if "admin" in before.roles and "admin" not in wanted[1]:
        _must_leave_an_admin(conn, before)
    after = staff.upsert(conn, before.email, name=wanted[0], roles=wanted[1], groups=wanted[2])
    if (after.roles, after.groups) != (before.roles, before.groups):
        keys.end_sessions(conn, person_id)
    return _note(conn, actor, "reviewer.changed", before, after, membership)


def disable(conn: Connection, actor: str, person_id: PersonId) -> Person:
    """In good standing → disabled, and signed out, at once; as they are when they were disabled already."""
    staff.hold(conn)
    before = _known(conn, person_id)
    _must_leave_an_admin(conn, before)
    if not staff.disable(conn, person_id):
        return before
    keys.end_sessions(conn, person_id)
    return _note(conn, actor, "reviewer.disabled", before, people.get(conn, person_id))


def enable(conn: Connection, actor: str, person_id: PersonId, *, membership: timedelta) -> Person:
    """Disabled → in good standing, as if newly given everything."""
    staff.hold(conn)
    before = _known(conn, person_id)
    if not staff.enable(conn, person_id):
        return before
    return _note(conn, actor, "reviewer.enabled", before, people.get(conn, person_id), membership)


def remove(conn: Connection, actor: str, person_id: PersonId) -> Person:
    """Anybody → gone from every list, for good. Votes and the audit log still name them."""
    staff.hold(conn)
    before = _known(conn, person_id)
    _must_leave_an_admin(conn, before)
    staff.remove(conn, person_id)
    keys.end_sessions(conn, person_id)
    return _note(conn, actor, "reviewer.removed", before, people.get(conn, person_id))


def sign_out(conn: Connection, actor: str, person_id: PersonId) -> int:
    """Every session of a person → over; how many there were."""
    ended = keys.end_sessions(conn, person_id)
    if ended:
        body: dict[str, Json] = {"person": ids.show("per", person_id), "sessions": ended}
        audit.append(conn, Event(actor, "session.ended_everywhere", body=body))
    return ended


def _known(conn: Connection, person_id: PersonId) -> Person:
    found = people.get(conn, person_id)
    if staff.removed(conn, person_id):
        raise NotFound(f"{found.email} was removed.")
    return found


def _must_leave_an_admin(conn: Connection, person: Person) -> None:
    others = [one for one in staff.everybody(conn) if quorum.ADMINS in quorum.standing(one) and one.id != person.id]
    if quorum.ADMINS in quorum.standing(person) and not others:
        raise Conflict(
            f"{person.email} is the last administrator. Make somebody else one first"
            " (`banksman reviewers add EMAIL --role admin`)."
        )


def _checked(
    name: str, roles: Collection[str], groups: Collection[str]
) -> tuple[str, Collection[str], Collection[str]]:
    if unknown := sorted(set(roles) - set(staff.ROLES)):
        raise InvalidInput(f"There is no role {', '.join(map(repr, unknown))}. There are: {', '.join(staff.ROLES)}.")
    if not roles:
        raise InvalidInput(f"Somebody needs at least one role: {', '.join(staff.ROLES)}.")
    if len(groups) > MOST_GROUPS:
        raise InvalidInput(f"A person is in at most {MOST_GROUPS} groups.")
    for word in (name, *groups):
        if not 1 <= len(word) <= MOST_NAME or not word.isprintable() or word.strip() != word or "," in word:
            raise InvalidInput(
                f"{word[:MOST_NAME]!r} is no name: it takes 1 to {MOST_NAME} printable characters, and no comma."
            )
    if own := sorted({quorum.REVIEWERS, quorum.ADMINS} & set(groups)):
        raise InvalidInput(f"The group {own[0]} is made by a role, and takes no list of members.")
    return name, sorted(set(roles)), sorted(set(groups))


def _note(  # noqa: PLR0917 - an audit line: who, what, before, after
    conn: Connection, actor: str, action: str, before: Person | None, after: Person, membership: timedelta | None = None
) -> Person:
    """The line in the audit log: who, what before, what after; and what that means for requests that are open."""
    had = frozenset[str]() if before is None else quorum.standing(before)
    has = quorum.standing(after)
    if membership is not None and (gained := has - had):
        now = staff.hold(conn)
        kept = {group: span for group, span in after.fresh.items() if group in has}
        after = staff.mark_fresh(conn, after.id, kept | dict.fromkeys(gained, (now, now + membership)))
    body: dict[str, Json] = {
        "person": ids.show("per", after.id),
        "before": None if before is None else _facts(before),
        "after": _facts(after) if action != "reviewer.removed" else None,
    }
    audit.append(conn, Event(actor, action, body=body))
    silence.look_again(conn, had - has)
    return after


def _facts(person: Person) -> dict[str, Json]:
    return {"roles": sorted(person.roles), "groups": sorted(person.groups), "disabled": person.disabled}
