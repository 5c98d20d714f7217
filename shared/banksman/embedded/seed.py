"""The people and keys of a stack on one machine: two reviewers, and one key that may submit and read."""

from __future__ import annotations

import hmac
from datetime import timedelta

from banksman import ids, ledger, tokens
from banksman.embedded.keyring import Credentials
from banksman.ids import PersonId
from banksman.ledger import audit, keys, roster, staff
from banksman.records import Event

REVIEWERS = {"ana@example.org": "Ana", "ben@example.org": "Ben"}
# On one's own machine whoever reviews may also pause and resume agents.
_ROLES = ("reviewer", "operator")
SUBMIT_SCOPES = ("runs:submit", "runs:read", "requests:read")
_LIFETIME = timedelta(days=3650)


def seed(owner_url: str, known: Credentials) -> Credentials:
    """Makes what is missing, in one transaction; a known credential that still counts is kept."""
    pool = ledger.open_pool(owner_url, size=1, name="banksman-seed")
    try:
        with ledger.transaction(pool) as conn:
            fresh: dict[str, str] = {}
            for email, name in REVIEWERS.items():
                person = staff.by_email(conn, email) or roster.add(
                    conn, "owner", email, name=name, roles=_ROLES, groups=(), membership=timedelta(0)
                )
                fresh[email] = _credential(conn, known.reviewer_tokens.get(email, ""), "tok", person.id)
            submit_key = _credential(conn, known.submit_key, "key", None)
    finally:
        pool.close()
    return Credentials(submit_key=submit_key, reviewer_tokens=fresh)


def _credential(conn: ledger.Connection, known: str, kind: str, person: PersonId | None) -> str:
    read = tokens.read(known)
    found = keys.find(conn, read[0]) if read else None
    if read and found and hmac.compare_digest(found[0], read[1]):
        return known
    minted = tokens.mint(kind)
    key_id = keys.store(
        conn,
        minted,
        kind=kind,
        name="embedded stack",
        # A personal token without scopes may do what its person may.
        scopes=SUBMIT_SCOPES if kind == "key" else (),
        person=person,
        lifetime=_LIFETIME,
    )
    made = "key.made" if kind == "key" else "token.made"
    audit.append(conn, Event("owner", made, body={"key": ids.show("key", key_id)}))
    return minted.text
