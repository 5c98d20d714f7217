"""Sign-in codes: who asked for one, and the notices that carry them to the browser or terminal that asked."""

from __future__ import annotations

from datetime import timedelta

from banksman.ids import NoticeId, PersonId
from banksman.ledger import Connection


def ask(conn: Connection, notice_id: NoticeId, email: str, *, asker: bytes, browser: PersonId | None) -> None:
    """Nothing → asked for, for whoever has this address, if anybody; the same work for an address that nobody has.

    `browser` is the person who has signed in there before: it is a known one only for that person.
    """
    conn.execute(
        """
        INSERT INTO sign_ins (id, person_id, asker, known)
        SELECT %(id)s, someone.id, %(asker)s, COALESCE(someone.id = %(browser)s::uuid, false)
        FROM (SELECT) AS always
        LEFT JOIN people AS someone
            ON lower(email) = lower(%(email)s) AND removed_at IS NULL AND disabled_at IS NULL
        """,
        {"id": notice_id, "email": email, "asker": asker, "browser": browser},
    )


def grant(conn: Connection, notice_id: NoticeId, *, lifetime: timedelta, each: int, strangers: int) -> bool:
    """Asked for → due: a code to type where it was asked for; False when nobody has the address, or too many were.

    An asker gets `each` within a lifetime, and all that nobody knows get `strangers` together: whoever types somebody's
    address elsewhere uses up nothing of a browser in which that person has signed in before.
    """
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    return (
        conn.execute(
            """
            INSERT INTO notices (id, kind, person_id, due_at, expires_at)
            SELECT asked.id, 'sign_in', asked.person_id, clock_timestamp(), clock_timestamp() + %(lifetime)s
            FROM sign_ins AS asked
            WHERE asked.id = %(id)s AND asked.person_id IS NOT NULL
              AND (SELECT count(*) < %(each)s
                   FROM sign_ins AS other
                   JOIN notices ON notices.id = other.id
                   WHERE other.person_id = asked.person_id AND other.created_at > clock_timestamp() - %(lifetime)s
                     AND other.asker = asked.asker AND other.known = asked.known)
              AND (asked.known
                   OR (SELECT count(*) < %(strangers)s
                       FROM sign_ins AS other
                       JOIN notices ON notices.id = other.id
                       WHERE other.person_id = asked.person_id AND other.created_at > clock_timestamp() - %(lifetime)s
                         AND NOT other.known))
            """,
            {"id": notice_id, "lifetime": lifetime, "each": each, "strangers": strangers},
        ).rowcount
        == 1
    )


def try_code(conn: Connection, notice_id: NoticeId, *, tries: int, lifetime: timedelta) -> bool:
    """Count one attempt at the code, also where there is none; False when the tries or the time are used up.

    Commit this before comparing, or an answer would cost nothing.
    """
    return (
        conn.execute(
            """
            UPDATE sign_ins
            SET tries = tries + 1
            WHERE id = %s AND tries < %s AND created_at > clock_timestamp() - %s
            """,
            (notice_id, tries, lifetime),
        ).rowcount
        == 1
    )


def forget(conn: Connection) -> None:
    """Whatever was asked for an hour ago → gone; what came of it is in the notices and the audit log."""
    conn.execute("DELETE FROM sign_ins WHERE created_at < clock_timestamp() - interval '1 hour'")


_LOCK = 0x7369676E
