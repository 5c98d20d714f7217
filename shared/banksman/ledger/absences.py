"""Absences: who is away from when until when, and who decides meanwhile. What is lent is in the view `lent`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from banksman import ids
from banksman.errors import NotFound
from banksman.ids import AbsenceId, PersonId
from banksman.ledger import Connection
from banksman.ledger.people import person_of
from banksman.records import Absence, Person

MOST_COMING = 20
"""How many absences one person may have said beforehand."""


def lenders(conn: Connection, stand_in_ids: Collection[PersonId]) -> dict[PersonId, Sequence[Person]]:
    """Of these people, who stands in at this moment, and for whom."""
    rows = conn.execute(
        """
        SELECT lent.stand_in_id, id, email, name, roles, people.groups, disabled_at IS NOT NULL, fresh
        FROM lent
        JOIN people ON people.id = absent_id
        WHERE lent.stand_in_id = ANY(%s)
        ORDER BY id
        """,
        (list(stand_in_ids),),
    ).fetchall()
    found: defaultdict[PersonId, list[Person]] = defaultdict(list)
    for stand_in, *person in rows:
        found[PersonId(stand_in)].append(person_of(person))
    return dict(found)


def declare(
    conn: Connection,
    absence_id: AbsenceId,
    person_id: PersonId,
    stand_in_id: PersonId,
    *,
    from_at: datetime | None,
    until_at: datetime,
) -> bool:
    """Nothing → an absence (from now on, without `from_at`); False where it overlaps one of the same person, is over
    before it begins, ends more than a year from now, or is one too many.
    """
    return (
        conn.execute(
            """
            INSERT INTO absences (id, person_id, stand_in_id, from_at, until_at)
            SELECT %(id)s, %(person)s, %(stand_in)s, away.from_at, %(until)s
            FROM (SELECT GREATEST(COALESCE(%(from)s::timestamptz, '-infinity'), clock_timestamp()) AS from_at) AS away
            WHERE away.from_at < %(until)s AND %(until)s < clock_timestamp() + interval '1 year'
              AND (SELECT count(*)
                   FROM absences AS other
                   WHERE other.person_id = %(person)s
                     AND other.ended_at IS NULL
                     AND other.until_at > clock_timestamp()) < %(most)s
              AND NOT EXISTS (
                  SELECT FROM absences AS other
                  WHERE other.person_id = %(person)s
                    AND other.ended_at IS NULL
                    AND other.from_at < %(until)s
                    AND other.until_at > away.from_at)
            """,
            {
                "id": absence_id,
                "person": person_id,
                "stand_in": stand_in_id,
                "from": from_at,
                "until": until_at,
                "most": MOST_COMING,
            },
        ).rowcount
        == 1
    )


def end(conn: Connection, absence_id: AbsenceId) -> bool:
    """Coming or live → ended, at once; False when it is over already."""
    return (
        conn.execute(
            """
            UPDATE absences
            SET ended_at = clock_timestamp()
            WHERE id = %s AND ended_at IS NULL AND until_at > clock_timestamp()
            """,
            (absence_id,),
        ).rowcount
        == 1
    )


def get(conn: Connection, absence_id: AbsenceId) -> Absence:
    """The absence, or `NotFound`."""
    found = _select(conn, "away.id = %(id)s", {"id": absence_id})
    if not found:
        raise NotFound(f"There is no absence {ids.show('abs', absence_id)}.")
    return found[0]


def coming(conn: Connection, person_id: PersonId | None = None) -> Sequence[Absence]:
    """Absences that are not over, of everybody, or of one person and those for whom they stand in."""
    mine = "%(person)s::uuid IS NULL OR away.person_id = %(person)s OR away.stand_in_id = %(person)s"
    return _select(
        conn, f"away.ended_at IS NULL AND away.until_at > clock_timestamp() AND ({mine})", {"person": person_id}
    )


def _select(conn: Connection, where: str, values: dict[str, Any]) -> Sequence[Absence]:
    rows = conn.execute(
        f"""
        SELECT away.id, from_at, until_at, ended_at,
               from_at <= clock_timestamp() AND clock_timestamp() < until_at AND ended_at IS NULL,
               person.id, person.email, person.name, person.roles, person.groups, person.disabled_at IS NOT NULL,
               person.fresh,
               stand_in.id, stand_in.email, stand_in.name, stand_in.roles, stand_in.groups,
               stand_in.disabled_at IS NOT NULL, stand_in.fresh
        FROM absences AS away
        JOIN people AS person ON person.id = away.person_id
        JOIN people AS stand_in ON stand_in.id = away.stand_in_id
        WHERE {where}
        ORDER BY from_at, away.id
        """.encode(),
        values,
    ).fetchall()
    return [
        Absence(AbsenceId(row[0]), person_of(row[5:12]), person_of(row[12:]), row[1], row[2], row[3], row[4])
        for row in rows
    ]
