"""Credentials: API keys, personal tokens and browser sessions; the database holds hashes only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from banksman import ids
from banksman.errors import Conflict, NotFound
from banksman.ids import KeyId, PersonId
from banksman.ledger import Connection
from banksman.ledger.people import person_of
from banksman.records import Key, Person, StoredKey, StoredSession
from banksman.tokens import Minted


def store(
    conn: Connection,
    minted: Minted,
    *,
    kind: str,
    name: str,
    scopes: Collection[str],
    person: PersonId | None,
    lifetime: timedelta,
) -> KeyId:
    """Keep a freshly minted credential; its text is not kept."""
    key_id = KeyId(ids.new())
    conn.execute(
        """
        INSERT INTO keys (id, handle, secret_hash, kind, name, person_id, scopes, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp() + %s)
        """,
        (key_id, minted.handle, minted.secret_hash, kind, name, person, list(scopes), lifetime),
    )
    return key_id


def find(conn: Connection, handle: str) -> tuple[bytes, Key] | None:
    """The hash to compare and the key of a handle, while it is neither expired nor revoked nor its owner disabled."""
    row = conn.execute(
        """
        SELECT secret_hash, keys.id, kind, keys.name, scopes,
               people.id, email, people.name, roles, groups, disabled_at IS NOT NULL, fresh
        FROM keys
        LEFT JOIN people ON people.id = keys.person_id
        WHERE handle = %s AND revoked_at IS NULL AND expires_at > clock_timestamp() AND disabled_at IS NULL
        """,
        (handle,),
    ).fetchone()
    if row is None:
        return None
    secret_hash, key_id, kind, name, scopes, *person = row
    owner = None if person[0] is None else person_of(person)
    return secret_hash, Key(KeyId(key_id), kind, name, frozenset(scopes), owner)


def used(conn: Connection, key_id: KeyId) -> None:
    """Remember that a key was used, to the minute, so that a busy key does not write on every call."""
    conn.execute(
        """
        UPDATE keys
        SET last_used_at = clock_timestamp()
        WHERE id = %s AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')
        """,
        (key_id,),
    )


def hold(conn: Connection) -> None:
    """One key is made at a time, until the transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


MOST_LIVE = 2
"""How many keys of one name count at a time: the one in use, and the one that takes its place."""


def must_have_room(conn: Connection, name: str) -> None:
    """Nothing, while another API key of this name may be made; one is made at a time until the transaction ends."""
    hold(conn)
    if _alike(conn, name) >= MOST_LIVE:
        raise Conflict(f"Two keys called {name!r} count already. Revoke one of them first.")


def _alike(conn: Connection, name: str) -> int:
    """How many API keys of this name count now."""
    row = conn.execute(
        """
        SELECT count(*)
        FROM keys
        WHERE kind = 'key' AND name = %s AND revoked_at IS NULL AND expires_at > clock_timestamp()
        """,
        (name,),
    ).fetchone()
    assert row is not None
    return row[0]


_LOCK = 0x6B657973


def revoke(conn: Connection, key_id: KeyId) -> bool:
    """Valid → revoked, at once; False when it was already."""
    return (
        conn.execute(
            "UPDATE keys SET revoked_at = clock_timestamp() WHERE id = %s AND revoked_at IS NULL", (key_id,)
        ).rowcount
        == 1
    )


_STORED = """
    SELECT keys.id, kind, keys.name, scopes, email,
           revoked_at IS NULL AND expires_at > clock_timestamp() AND disabled_at IS NULL,
           keys.created_at, expires_at, revoked_at, last_used_at
    FROM keys
    LEFT JOIN people ON people.id = keys.person_id
"""


def get(conn: Connection, key_id: KeyId) -> StoredKey:
    """The key or token as it is kept, or `NotFound`."""
    row = conn.execute(f"{_STORED} WHERE keys.id = %s", (key_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no key {ids.show('key', key_id)}.")
    return _stored(row)


def everything(conn: Connection) -> Sequence[StoredKey]:
    """Every key and token there ever was, oldest first."""
    return [_stored(row) for row in conn.execute(f"{_STORED} ORDER BY keys.id").fetchall()]


def of_person(conn: Connection, person_id: PersonId) -> Sequence[StoredKey]:
    """One person's keys and tokens, oldest first."""
    rows = conn.execute(f"{_STORED} WHERE keys.person_id = %s ORDER BY keys.id", (person_id,)).fetchall()
    return [_stored(row) for row in rows]


def _stored(row: Sequence[Any]) -> StoredKey:
    key_id, kind, name, scopes, owner, live, created_at, expires_at, revoked_at, last_used_at = row
    return StoredKey(
        id=KeyId(key_id),
        kind=kind,
        name=name,
        scopes=frozenset(scopes),
        owner=owner,
        live=live,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
    )


def open_session(conn: Connection, id_hash: bytes, person: PersonId, *, lifetime: timedelta) -> None:
    """Nothing → a browser session of at most `lifetime`."""
    conn.execute(
        "INSERT INTO sessions (id_hash, person_id, expires_at) VALUES (%s, %s, clock_timestamp() + %s)",
        (id_hash, person, lifetime),
    )


def session(conn: Connection, id_hash: bytes, *, idle: timedelta) -> Person | None:
    """Who a session belongs to, while it lives and was used within `idle`."""
    row = conn.execute(
        """
        SELECT people.id, email, name, roles, groups, disabled_at IS NOT NULL, fresh,
               seen_at < clock_timestamp() - interval '1 minute'
        FROM sessions
        JOIN people ON people.id = sessions.person_id
        WHERE id_hash = %s AND ended_at IS NULL AND expires_at > clock_timestamp()
          AND seen_at > clock_timestamp() - %s AND disabled_at IS NULL
        """,
        (id_hash, idle),
    ).fetchone()
    if row is None:
        return None
    if row[-1]:
        conn.execute("UPDATE sessions SET seen_at = clock_timestamp() WHERE id_hash = %s", (id_hash,))
    return person_of(row[:-1])


def end_sessions(conn: Connection, person_id: PersonId, *, id_hash: bytes | None = None) -> int:
    """A person's sessions → over: all of them, or the one of this hash; how many ended."""
    return conn.execute(
        """
        UPDATE sessions
        SET ended_at = clock_timestamp()
        WHERE person_id = %(person)s AND ended_at IS NULL AND expires_at > clock_timestamp()
          AND (%(hash)s::bytea IS NULL OR id_hash = %(hash)s)
        """,
        {"person": person_id, "hash": id_hash},
    ).rowcount


def sessions(conn: Connection, person_id: PersonId, *, idle: timedelta) -> Sequence[StoredSession]:
    """A person's sessions that live, newest first."""
    rows = conn.execute(
        """
        SELECT id_hash, created_at, seen_at, expires_at
        FROM sessions
        WHERE person_id = %s AND ended_at IS NULL AND expires_at > clock_timestamp()
          AND seen_at > clock_timestamp() - %s
        ORDER BY created_at DESC
        """,
        (person_id, idle),
    ).fetchall()
    return [StoredSession(*row) for row in rows]


def lives(conn: Connection, id_hash: bytes, *, idle: timedelta) -> Person | None:
    """Who a session belongs to, without keeping it alive."""
    row = conn.execute(
        """
        SELECT people.id, email, name, roles, groups, disabled_at IS NOT NULL, fresh
        FROM sessions
        JOIN people ON people.id = sessions.person_id
        WHERE id_hash = %s AND ended_at IS NULL AND expires_at > clock_timestamp()
          AND seen_at > clock_timestamp() - %s AND disabled_at IS NULL
        """,
        (id_hash, idle),
    ).fetchone()
    return None if row is None else person_of(row)


def end_session(conn: Connection, id_hash: bytes) -> None:
    """A session → over."""
    conn.execute("UPDATE sessions SET ended_at = clock_timestamp() WHERE id_hash = %s AND ended_at IS NULL", (id_hash,))
