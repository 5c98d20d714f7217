"""Standing grants: given and revoked by the gateway, used up by the workers as calls start."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from banksman import ids, vault
from banksman.errors import NotFound, NotGenuine, NotHere
from banksman.ids import GrantId, PersonId, RequestId
from banksman.ledger import Connection
from banksman.records import Grant, StoredGrant
from banksman.signing import Signed

MOST_LOADED = 1000
_SELECT = """
    SELECT grants.id, statement, signature, kid, agent, tool, owner_id, email, used, most, grants.created_at,
           expires_at, expires_at <= clock_timestamp(), revoked_at
    FROM grants
    JOIN people ON people.id = owner_id
"""


def until(conn: Connection, lifetime: timedelta) -> datetime:
    """The moment so far from now."""
    row = conn.execute("SELECT date_trunc('milliseconds', clock_timestamp() + %s)", (lifetime,)).fetchone()
    assert row is not None
    return row[0]


def give(conn: Connection, grant: Grant, signed: Signed, *, request_id: RequestId) -> None:
    """Nothing → standing."""
    conn.execute(
        """
        INSERT INTO grants (id, statement, signature, kid, owner_id, request_id, agent, tool, most, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            grant.id,
            vault.seal(signed.statement, ("grants.statement", grant.id)),
            signed.signature,
            signed.kid,
            grant.owner_id,
            request_id,
            grant.bound["agent"],
            grant.bound["tool"],
            grant.most,
            grant.expires_at,
        ),
    )


def use(conn: Connection, grant: Grant) -> bool:
    """Standing → used once more. False: it is used up, over, revoked, or no longer what was verified.

    The limits are those that were signed. Whoever else uses it at this moment waits for the row, so that the cap holds.
    """
    return (
        conn.execute(
            """
            UPDATE grants
            SET used = used + 1
            WHERE id = %(id)s AND signature = %(signature)s AND revoked_at IS NULL
              AND used < LEAST(most, %(most)s) AND LEAST(expires_at, %(expires)s) > clock_timestamp()
            """,
            {"id": grant.id, "signature": grant.signature, "most": grant.most, "expires": grant.expires_at},
        ).rowcount
        == 1
    )


def revoke(conn: Connection, grant_id: GrantId, by: PersonId) -> bool:
    """Standing → revoked. False: it was revoked already."""
    return (
        conn.execute(
            "UPDATE grants SET revoked_at = clock_timestamp(), revoked_by = %s WHERE id = %s AND revoked_at IS NULL",
            (by, grant_id),
        ).rowcount
        == 1
    )


def recent(conn: Connection) -> Sequence[StoredGrant]:
    """Grants that stand, or stood until a day ago, so that it can be said why one covers a call no longer."""
    rows = conn.execute(
        f"""
        {_SELECT}
        WHERE expires_at > statement_timestamp() - interval '1 day'
        ORDER BY expires_at DESC
        LIMIT %s
        """,
        (MOST_LOADED,),
    ).fetchall()
    return [_stored(row) for row in rows]


def get(conn: Connection, grant_id: GrantId) -> StoredGrant:
    """The grant, or `NotFound`."""
    row = conn.execute(f"{_SELECT} WHERE grants.id = %s", (grant_id,)).fetchone()
    if row is None:
        raise NotFound(f"There is no grant {ids.show('gra', grant_id)}.")
    return _stored(row)


def listed(conn: Connection, *, before: GrantId | None, limit: int, live: bool = False) -> Sequence[StoredGrant]:
    """Grants, newest first; the `live` ones may let a call through still."""
    rows = conn.execute(
        f"""
        {_SELECT}
        WHERE (%(before)s::uuid IS NULL OR grants.id < %(before)s)
          AND (NOT %(live)s OR revoked_at IS NULL AND expires_at > clock_timestamp() AND used < most)
        ORDER BY grants.id DESC
        LIMIT %(limit)s
        """,
        {"before": before, "limit": limit, "live": live},
    ).fetchall()
    return [_stored(row) for row in rows]


def _stored(row: Sequence[Any]) -> StoredGrant:
    (grant_id, statement, signature, kid, agent, tool, owner_id, owner, used, most, created_at, expires_at, expired,
     revoked_at) = row  # fmt: skip
    # A statement that cannot be opened is one that cannot be verified: it must not keep the others from being read.
    try:
        body = vault.open_sealed(statement, ("grants.statement", grant_id))
    except (NotGenuine, NotHere):
        body = b""
    return StoredGrant(
        id=GrantId(grant_id),
        signed=Signed(body, signature, kid),
        agent=agent,
        tool=tool,
        owner_id=PersonId(owner_id),
        owner=owner,
        used=used,
        most=most,
        created_at=created_at,
        expires_at=expires_at,
        expired=expired,
        revoked_at=revoked_at,
    )
