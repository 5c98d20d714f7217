"""What each person prefers: by which ways they are told, when they are left in peace, how long things are gathered."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from banksman import ids, vault
from banksman.errors import NotGenuine, NotHere
from banksman.ids import PersonId
from banksman.ledger import Connection
from banksman.records import Preferences, Quiet

log = logging.getLogger(__name__)


def of(conn: Connection, person_ids: Collection[PersonId]) -> Mapping[PersonId, Preferences]:
    """The preferences of those who have any; who is not in it is told in the usual way."""
    rows = conn.execute(
        """
        SELECT person_id, email, urls, quiet_from, quiet_to, zone, hold_high, gather_medium, gather_low
        FROM preferences
        WHERE person_id = ANY(%s)
        """,
        (list(person_ids),),
    ).fetchall()
    return {PersonId(row[0]): _of_row(row) for row in rows}


def get(conn: Connection, person_id: PersonId) -> Preferences:
    """A person's preferences, or the usual ones."""
    return of(conn, [person_id]).get(person_id, Preferences())


def urls_of(conn: Connection, email: str) -> Sequence[str]:
    """The URLs of the person with this address; they hold secrets."""
    row = conn.execute(
        """
        SELECT person_id, urls
        FROM preferences
        JOIN people ON people.id = person_id
        WHERE lower(people.email) = lower(%s) AND people.disabled_at IS NULL
        """,
        (email,),
    ).fetchone()
    return () if row is None or row[1] is None else _opened(row[0], row[1])


def put(conn: Connection, person_id: PersonId, wanted: Preferences) -> None:
    """Whatever was preferred → exactly this."""
    quiet = wanted.quiet
    conn.execute(
        """
        INSERT INTO preferences (person_id, email, urls, quiet_from, quiet_to, zone, hold_high, gather_medium,
                                 gather_low)
        VALUES (%(person)s, %(email)s, %(urls)s, %(from)s, %(to)s, %(zone)s, %(high)s, %(medium)s, %(low)s)
        ON CONFLICT (person_id) DO UPDATE
        SET email = EXCLUDED.email, urls = EXCLUDED.urls, quiet_from = EXCLUDED.quiet_from,
            quiet_to = EXCLUDED.quiet_to, zone = EXCLUDED.zone, hold_high = EXCLUDED.hold_high,
            gather_medium = EXCLUDED.gather_medium, gather_low = EXCLUDED.gather_low, changed_at = clock_timestamp()
        """,
        {
            "person": person_id,
            "email": wanted.email,
            "urls": _sealed(person_id, wanted.urls) if wanted.urls else None,
            "from": None if quiet is None else quiet.begins,
            "to": None if quiet is None else quiet.ends,
            "zone": None if quiet is None else quiet.zone,
            "high": wanted.hold_high,
            "medium": wanted.gather_medium,
            "low": wanted.gather_low,
        },
    )


def _of_row(row: Sequence[Any]) -> Preferences:
    person, email, urls, begins, ends, zone, hold_high, medium, low = row
    opened = () if urls is None else _opened(person, urls)
    return Preferences(
        email=email or not opened,
        urls=opened,
        quiet=None if zone is None else Quiet(begins, ends, zone),
        hold_high=hold_high,
        gather_medium=medium,
        gather_low=low,
    )


def _sealed(person: PersonId, urls: Sequence[str]) -> bytes:
    return vault.seal(json.dumps(list(urls)).encode(), ("preferences.urls", person))


def _opened(person: PersonId, urls: bytes) -> tuple[str, ...]:
    """The URLs, or none where they cannot be read: this person is told by mail then, and nobody else waits for it."""
    try:
        return tuple(json.loads(vault.open_sealed(urls, ("preferences.urls", person))))
    except (NotGenuine, NotHere) as error:
        log.error("The URLs of %s cannot be read: %s", ids.show("per", person), error)  # noqa: TRY400
        return ()
