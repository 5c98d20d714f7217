"""Commands of whoever owns the database: `keys` for programs, `reviewers` for people.

They write with the owner's rights and not through the gateway, so that an installation can get its first key and its
first people. Each change stands in the audit log, made by `owner`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from banksman.cli import gateway_keys, given, place, show, vault_keys
from banksman.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from banksman.ledger import Connection
    from banksman.records import Person, StoredKey

_ACTOR = "owner"
_WHERE = "Works on the database of BANKSMAN_DATABASE_URL (its owner's, as for migrate), else of the nearest stack."

keys = typer.Typer(
    help=f"API keys of programs and people's tokens, and the keys that the gateway signs and mints with. {_WHERE} The "
    "gateway's own keys are in files: of the nearest stack, or of the compose deployment here or in --folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
keys.command()(gateway_keys.rotate)
keys.command()(gateway_keys.retire)
keys.command()(vault_keys.reseal)
reviewers = typer.Typer(help=f"The people who may sign in. {_WHERE}", no_args_is_help=True, rich_markup_mode=None)


@keys.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="What it is called in lists and timelines.")],
    scope: Annotated[list[str], typer.Option(help="What it opens, such as runs:submit; may be repeated.")],
    owner: Annotated[
        str,
        typer.Option(
            metavar="EMAIL",
            help="Whose it is: the requester of its runs, who then cannot approve them.",
            show_default=False,
        ),
    ] = "",
    days: Annotated[int, typer.Option(min=1, max=365, help="How long it counts.")] = 90,
    as_json: given.Json = False,
) -> None:
    """Make an API key and print it, this once. No key can vote."""
    from banksman import ids, scopes, tokens
    from banksman.ledger import keys as rows

    opened = scopes.of_a_key(scope)
    _must_be_words(name)
    minted = tokens.mint("key")
    with _ledger() as conn:
        person = _person(conn, owner) if owner else None
        if person is not None and person.disabled:
            raise Conflict(f"{person.email} is disabled and can own no key.")
        rows.must_have_room(conn, name)
        key_id = rows.store(
            conn,
            minted,
            kind="key",
            name=name,
            scopes=opened,
            person=None if person is None else person.id,
            lifetime=timedelta(days=days),
        )
        made = rows.get(conn, key_id)
        _note(
            conn,
            "key.made",
            key=_shown(made),
            scopes=sorted(made.scopes),
            owner=None if person is None else ids.show("per", person.id),
            expires_at=made.expires_at.isoformat(),
        )
    if as_json:
        show.as_json(_facts(made) | {"key": minted.text})
        return
    typer.echo(minted.text)
    show.complain(
        f"{_shown(made)} opens {', '.join(opened)} until {show.moment(made.expires_at)}."
        " It is shown this once: only its hash is kept."
    )


@keys.command("list")
def list_keys(*, folder: gateway_keys.Folder = None, as_json: given.Json = False) -> None:
    """List keys and tokens, oldest first, and the gateway's own keys, newest first; never their texts."""
    from banksman.ledger import keys as rows

    store = gateway_keys.find(folder)
    found: Sequence[StoredKey] = ()
    if store is None or place.has_database():
        with _ledger() as conn:
            found = rows.everything(conn)
    own = [] if store is None else gateway_keys.facts(store)
    if as_json:
        show.as_json([*(_facts(key) | {"state": _state(key)} for key in found), *own])
        return
    show.table(
        ["key", "kind", "name", "owner", "opens", "until", "last used", "state"],
        [
            [
                _shown(key),
                "key" if key.kind == "key" else "token",
                key.name,
                key.owner or "",
                ",".join(sorted(key.scopes)) or "all that its person may",
                show.moment(key.expires_at),
                show.moment(key.last_used_at),
                _state(key),
            ]
            for key in found
        ]
        + ([] if store is None else gateway_keys.rows(store)),
    )


@keys.command()
def revoke(which: given.Ids = None, *, folder: gateway_keys.Folder = None, as_json: given.Json = False) -> None:
    """Revoke keys or tokens (key_…) at once, or keys of the gateway's by their name; for good."""
    from banksman import ids
    from banksman.ids import KeyId
    from banksman.ledger import keys as rows

    own = [word for word in which or () if not word.startswith("key_")]
    if own and len(own) < len(which or ()):
        raise InvalidInput("Revoke the gateway's keys and those of programs (key_…) one after the other.")
    if own:
        gateway_keys.revoke(own, gateway_keys.must_find(folder), as_json=as_json)
        return
    key_ids = [KeyId(ids.read("key", word)) for word in given.read_ids(which, prefix="key")]
    with _ledger() as conn:
        for key_id in key_ids:
            if rows.revoke(conn, key_id):
                _note(conn, "key.revoked", key=ids.show("key", key_id))
        found = [rows.get(conn, key_id) for key_id in key_ids]
    if as_json:
        show.as_json([_facts(key) | {"state": _state(key)} for key in found])
        return
    for key in found:
        typer.echo(f"{_shown(key)} ({show.prose(key.name)}) is revoked.")


Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        help="reviewer votes; operator stops and retries runs; admin does that and manages people; auditor reads."
        " May be repeated.",
        show_default=False,
    ),
]
Groups = Annotated[list[str] | None, typer.Option("--group", help="May be repeated.", show_default=False)]
Name = Annotated[str, typer.Option(help="What they are called.", show_default=False)]
Email = Annotated[str, typer.Argument(help="The address that codes and mails go to.")]


@reviewers.command()
def add(
    email: Email, *, name: Name = "", role: Roles = None, group: Groups = None, as_json: given.Json = False
) -> None:
    """Let somebody sign in, as a reviewer if no role is named; for one who is here already, change what is given."""
    from banksman import addresses
    from banksman.ledger import roster, staff

    with _ledger() as conn:
        known = staff.by_email(conn, addresses.checked(email))
        if known is not None and known.disabled:
            raise Conflict(f"{known.email} is disabled. `banksman reviewers enable {known.email}` lets them in again.")
        added = None
        if known is None:
            added = roster.add(
                conn,
                _ACTOR,
                email,
                name=name,
                roles=role or ["reviewer"],
                groups=group or [],
                membership=place.membership(),
            )
    if added is None:
        change(email, name=name, role=role, group=group, as_json=as_json)
    else:
        _say(added, "added", as_json=as_json)


@reviewers.command()
def change(
    email: Email,
    *,
    name: Name = "",
    role: Roles = None,
    group: Groups = None,
    no_groups: Annotated[bool, typer.Option("--no-groups", help="Take them out of every group.")] = False,
    as_json: given.Json = False,
) -> None:
    """Give somebody another name, other roles or groups. What is not named stays; they are signed out everywhere."""
    from banksman.ledger import roster

    if group and no_groups:
        raise InvalidInput("Name --group or --no-groups, not both.")
    with _ledger() as conn:
        person = roster.change(
            conn,
            _ACTOR,
            _person(conn, email).id,
            name=name or None,
            roles=role or None,
            groups=[] if no_groups else group or None,
            membership=place.membership(),
        )
    _say(person, "changed", as_json=as_json)


@reviewers.command("list")
def list_reviewers(*, as_json: given.Json = False) -> None:
    """List everybody, disabled people too."""
    from banksman.ledger import staff

    with _ledger() as conn:
        found = staff.everybody(conn)
    if as_json:
        show.as_json([_card(person) for person in found])
        return
    show.table(
        ["address", "name", "roles", "groups", "state"],
        [
            [
                person.email,
                person.name,
                ",".join(sorted(person.roles)),
                ",".join(sorted(person.groups)),
                "disabled" if person.disabled else "",
            ]
            for person in found
        ],
    )


@reviewers.command()
def disable(email: Email, *, as_json: given.Json = False) -> None:
    """Shut somebody out at once: sessions, tokens and keys, and votes on calls that have not started."""
    from banksman.ledger import roster

    with _ledger() as conn:
        person = roster.disable(conn, _ACTOR, _person(conn, email).id)
    if as_json:
        show.as_json(_card(person))
    else:
        typer.echo(f"{show.prose(person.email)} is disabled.")


@reviewers.command()
def enable(email: Email, *, as_json: given.Json = False) -> None:
    """Let somebody in again who was disabled."""
    from banksman.ledger import roster

    with _ledger() as conn:
        person = roster.enable(conn, _ACTOR, _person(conn, email).id, membership=place.membership())
    _say(person, "enabled", as_json=as_json)


@reviewers.command()
def remove(email: Email, *, as_json: given.Json = False) -> None:
    """Take somebody off every list, for good. What they voted, and the audit log, still name them."""
    from banksman.ledger import roster

    with _ledger() as conn:
        person = roster.remove(conn, _ACTOR, _person(conn, email).id)
    if as_json:
        show.as_json(_card(person))
    else:
        typer.echo(f"{show.prose(person.email)} is removed.")


def _say(person: Person, verb: str, *, as_json: bool) -> None:
    if as_json:
        show.as_json(_card(person))
        return
    of = f" of {', '.join(sorted(person.groups))}" if person.groups else ""
    typer.echo(show.prose(f"{verb} {person.email}: {', '.join(sorted(person.roles))}{of}"))


@contextmanager
def _ledger() -> Generator[Connection]:
    from banksman import ledger

    with ledger.once(place.database_url(), name="banksman-cli") as conn:
        yield conn


def _must_be_words(*names: str) -> None:
    for name in names:
        if not 1 <= len(name) <= 100 or not name.isprintable():
            raise InvalidInput(f"{name[:100]!r} is no name: it takes 1 to 100 printable characters.")


def _person(conn: Connection, email: str) -> Person:
    from banksman.ledger import staff

    person = staff.by_email(conn, email.strip())
    if person is None:
        raise NotFound(f"There is nobody with the address {email[:100]!r}.")
    return person


def _note(conn: Connection, action: str, **body: Any) -> None:
    from banksman.ledger import audit
    from banksman.records import Event

    audit.append(conn, Event(_ACTOR, action, body=body))


def _shown(key: StoredKey) -> str:
    from banksman import ids

    return ids.show("key", key.id)


def _facts(key: StoredKey) -> dict[str, Any]:
    return {
        "id": _shown(key),
        "kind": key.kind,
        "name": key.name,
        "owner": key.owner,
        "scopes": sorted(key.scopes),
        "expires_at": key.expires_at.isoformat(),
    }


def _state(key: StoredKey) -> str:
    if key.live:
        return "valid"
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at <= datetime.now(UTC) else "owner disabled"


def _card(person: Person) -> dict[str, Any]:
    from banksman import ids

    lists: dict[str, Sequence[str]] = {"roles": sorted(person.roles), "groups": sorted(person.groups)}
    facts = {"id": ids.show("per", person.id), "email": person.email, "name": person.name}
    return facts | lists | {"disabled": person.disabled}
