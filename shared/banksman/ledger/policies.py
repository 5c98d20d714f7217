"""Policies: the versions of the rules that administrators uploaded. The gateway appends, workers read the latest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from banksman import vault
from banksman.errors import NotFound
from banksman.ids import PersonId
from banksman.ledger import Connection
from banksman.signing import Signed

_LOCK = 0x706F6C69
_SELECT = """
    SELECT version, statement, signature, kid, author_id, email, policies.created_at
    FROM policies
    JOIN people ON people.id = author_id
"""


@dataclass(frozen=True, slots=True)
class Version:
    """One version as it is stored. What it says counts only once its signature is verified."""

    number: int
    signed: Signed
    author_id: PersonId
    author: str
    created_at: datetime


def next_number(conn: Connection) -> int:
    """The number of the version to come. Until the transaction ends nobody else is given one."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    row = conn.execute("SELECT COALESCE(max(version), 0) + 1 FROM policies").fetchone()
    assert row is not None
    return row[0]


def append(conn: Connection, number: int, signed: Signed, author: PersonId) -> None:
    """Nothing → the version of this number, in force from the commit on."""
    conn.execute(
        """
        INSERT INTO policies (version, statement, signature, kid, author_id)
        VALUES (%s, %s, %s, %s, %s)
        """,
        (number, vault.seal(signed.statement, ("policies.statement", number)), signed.signature, signed.kid, author),
    )


def newest(conn: Connection, known: int) -> tuple[int, Signed | None] | None:
    """The number of the version in force, with its statement where that is not the one known; None without any.

    It is read alone, without its author: what a worker must know is in the statement.
    """
    row = conn.execute(
        """
        SELECT version, CASE WHEN version <> %s THEN statement END, signature, kid
        FROM policies
        ORDER BY version DESC
        LIMIT 1
        """,
        (known,),
    ).fetchone()
    if row is None:
        return None
    version, statement, signature, kid = row
    if statement is None:
        return version, None
    return version, Signed(vault.open_sealed(statement, ("policies.statement", version)), signature, kid)


def current(conn: Connection) -> Version | None:
    """The version in force."""
    row = conn.execute(f"{_SELECT} ORDER BY version DESC LIMIT 1").fetchone()
    return None if row is None else _version(row)


def get(conn: Connection, number: int) -> Version:
    """A version, or `NotFound`."""
    row = conn.execute(f"{_SELECT} WHERE version = %s", (number,)).fetchone()
    if row is None:
        raise NotFound(f"There is no version {number} of the policy.")
    return _version(row)


def versions(conn: Connection, *, before: int | None, limit: int) -> Sequence[Version]:
    """Versions, newest first."""
    rows = conn.execute(
        f"{_SELECT} WHERE %(before)s::integer IS NULL OR version < %(before)s ORDER BY version DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
    ).fetchall()
    return [_version(row) for row in rows]


def _version(row: Sequence[Any]) -> Version:
    number, statement, signature, kid, author_id, author, created_at = row
    body = vault.open_sealed(statement, ("policies.statement", number))
    return Version(number, Signed(body, signature, kid), PersonId(author_id), author, created_at)
