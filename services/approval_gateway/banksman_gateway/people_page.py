"""The pages of people and keys: for administrators to change, for auditors to look at; and each person's own sessions.

A role or group that somebody is given, or a key, opens doors, so every form here carries the session's token, and each
change is the same call of `roster` or `keys` as over the API, with the same line in the audit log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from banksman import ids, scopes
from banksman.errors import BanksmanError, Conflict, InvalidInput, NotFound
from banksman.ids import KeyId, PersonId
from banksman.ledger import Connection, audit, people, roster, staff
from banksman.ledger import keys as rows
from banksman.records import Event, Person
from banksman_gateway import door, html, keys, problems, sessions
from banksman_gateway.forms import Form, Posted
from banksman_gateway.parts import Here, Parts
from banksman_gateway.people import must_look, must_manage
from banksman_gateway.sessions import Session, SignedIn

router = APIRouter(include_in_schema=False)


@router.get("/people")
def show_people(here: Here, session: SignedIn) -> Response:
    """Everybody, and a form to let somebody in."""
    must_look(session.person)
    return _people(here, session)


@router.post("/people")
def add_person(here: Here, form: Posted, session: SignedIn) -> Response:
    """Let somebody sign in."""
    form.must_be_of(here.link_keys, session.secret)
    try:
        with door.transaction(here) as conn:
            actor = _manager(conn, session)
            made = roster.add(
                conn,
                actor,
                form.text("email"),
                name=form.text("name"),
                roles=_roles(form),
                groups=_words(form.text("groups")),
                membership=here.settings.membership,
            )
    except (InvalidInput, Conflict) as error:
        return _people(here, session, error)
    return html.see(f"/people/{ids.show('per', made.id)}")


@router.get("/people/{person_id}")
def show_person(person_id: str, here: Here, session: SignedIn) -> Response:
    """One person, and the forms to change them."""
    must_look(session.person)
    return _person(here, session, PersonId(ids.read("per", person_id)))


@router.post("/people/{person_id}/{move}")
def change_person(person_id: str, move: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """`change`, `disable`, `enable`, `remove` or `sign-out`, by the administrator in the session."""
    form.must_be_of(here.link_keys, session.secret)
    wanted = PersonId(ids.read("per", person_id))
    try:
        with door.transaction(here) as conn:
            _move(conn, here, _manager(conn, session), wanted, move=move, form=form)
    except (InvalidInput, Conflict) as error:
        return _person(here, session, wanted, error)
    return html.see("/people" if move == "remove" else f"/people/{person_id}")


@router.get("/keys")
def show_keys(here: Here, session: SignedIn) -> Response:
    """Every key and token, and a form to make a key."""
    must_look(session.person)
    return _keys(here, session)


@router.post("/keys")
def make_key(here: Here, form: Posted, session: SignedIn) -> Response:
    """Make a key. Its text is on the answer's page and nowhere else: reloading it makes no second one by itself."""
    form.must_be_of(here.link_keys, session.secret)
    opens = [scope for scope in scopes.OF_KEYS if form.text(f"scope-{scope}") == "yes"]
    try:
        with door.transaction(here) as conn:
            actor = _manager(conn, session)
            owner = staff.by_email(conn, form.text("owner")) if form.text("owner") else None
            if owner is None and form.text("owner"):
                raise InvalidInput(f"There is nobody with the address {form.text('owner')[:100]!r}.")
            _, text = keys.make(
                conn,
                actor,
                name=_line(form.text("name")),
                opens=opens,
                owner=None if owner is None else owner.id,
                days=_days(form.text("days")),
            )
    except (InvalidInput, Conflict) as error:
        return _keys(here, session, error)
    return _keys(here, session, made=text)


@router.post("/keys/{key_id}/revoke")
def revoke_key(key_id: str, here: Here, form: Posted, session: SignedIn) -> Response:
    """Revoke a key or token at once: any by an administrator, their own tokens by everybody."""
    form.must_be_of(here.link_keys, session.secret)
    wanted = KeyId(ids.read("key", key_id))
    with door.transaction(here) as conn:
        found = rows.get(conn, wanted)
        own = found.kind == "tok" and found.owner == session.person.email
        if not own:
            _manager(conn, session)
        keys.revoke(conn, ids.show("per", session.person.id), wanted)
    return html.see("/account" if own else "/keys")


@router.get("/account")
def show_account(here: Here, session: SignedIn) -> Response:
    """Where this person is signed in, and their tokens."""
    with door.transaction(here) as conn:
        found = rows.sessions(conn, session.person.id, idle=sessions.IDLE)
        own = [key for key in rows.of_person(conn, session.person.id) if key.live]
    return html.page(
        "account.html",
        **sessions.signed_in(here, session),
        sessions=found,
        this=sessions.hash_of(session.secret),
        keys=own,
    )


@router.post("/account/sign-out")
def sign_out(here: Here, form: Posted, session: SignedIn) -> Response:
    """End one of one's own sessions, or all of them."""
    form.must_be_of(here.link_keys, session.secret)
    actor, which = ids.show("per", session.person.id), form.text("session")
    with door.transaction(here) as conn:
        if which:
            if rows.end_sessions(conn, session.person.id, id_hash=_hash(which)):
                audit.append(conn, Event(actor, "session.ended"))
        else:
            roster.sign_out(conn, actor, session.person.id)
    return html.see("/account")


def _manager(conn: Connection, session: Session) -> str:
    """The administrator's name in the audit log, looked at again once nobody else can change people any more."""
    must_manage(session.person)
    staff.hold(conn)
    return ids.show("per", must_manage(sessions.still(conn, session)).id)


def _move(conn: Connection, here: Parts, actor: str, wanted: PersonId, *, move: str, form: Form) -> None:
    membership = here.settings.membership
    match move:
        case "change":
            if form.text("was") != _as_shown(people.get(conn, wanted)):
                raise Conflict("Somebody has changed this person meanwhile, so nothing was changed. Look again.")
            name, groups = form.text("name"), _words(form.text("groups"))
            roster.change(conn, actor, wanted, name=name, roles=_roles(form), groups=groups, membership=membership)
        case "disable":
            roster.disable(conn, actor, wanted)
        case "enable":
            roster.enable(conn, actor, wanted, membership=membership)
        case "remove":
            roster.remove(conn, actor, wanted)
        case "sign-out":
            roster.sign_out(conn, actor, people.get(conn, wanted).id)
        case _:
            raise NotFound("There is nothing here.")


def _people(here: Parts, session: Session, error: BanksmanError | None = None) -> Response:
    with door.transaction(here) as conn:
        found = staff.everybody(conn)
    return _page("people.html", here, session, error, everybody=found)


def _person(here: Parts, session: Session, wanted: PersonId, error: BanksmanError | None = None) -> Response:
    with door.transaction(here) as conn:
        found = people.get(conn, wanted)
        removed = staff.removed(conn, wanted)
        live = rows.sessions(conn, wanted, idle=sessions.IDLE)
        own = [key for key in rows.of_person(conn, wanted) if key.live]
    values = {"someone": found, "was": _as_shown(found), "removed": removed, "sessions": live, "keys": own}
    return _page("person.html", here, session, error, **values)


def _keys(here: Parts, session: Session, error: BanksmanError | None = None, *, made: str = "") -> Response:
    with door.transaction(here) as conn:
        found = rows.everything(conn)
    return _page("keys.html", here, session, error, keys=found[::-1], scopes=scopes.OF_KEYS, made=made)


def _page(name: str, here: Parts, session: Session, error: BanksmanError | None, **values: Any) -> Response:
    problem = None if error is None else problems.of(error)
    return html.page(
        name,
        200 if problem is None else problem.status,
        **sessions.signed_in(here, session),
        roles=staff.ROLES,
        may_manage="admin" in session.person.roles,
        problem=problem,
        **values,
    )


def _as_shown(person: Person) -> str:
    """What the form for a change was filled with."""
    return json.dumps([person.name, sorted(person.roles), sorted(person.groups)])


def _roles(form: Form) -> Sequence[str]:
    return [role for role in staff.ROLES if form.text(f"role-{role}") == "yes"]


def _words(text: str) -> Sequence[str]:
    return [word for word in map(str.strip, text.split(",")) if word]


def _line(text: str) -> str:
    if not 1 <= len(text) <= roster.MOST_NAME or not text.isprintable():
        raise InvalidInput(f"A key's name takes 1 to {roster.MOST_NAME} printable characters.")
    return text


def _days(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= keys.MOST_DAYS:
        raise InvalidInput(f"A key counts for 1 to {keys.MOST_DAYS} days.")
    return int(text)


def _hash(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidInput("There is no such session.") from None
