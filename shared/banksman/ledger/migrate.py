"""Migrations: numbered SQL files applied in order, each once, under a lock; and the roles of the services.

A migration works while the previous release still runs: add, backfill, switch, remove, in separate releases.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from banksman.digest import Json
from banksman.errors import ConfigurationError, Unavailable
from banksman.ledger import audit
from banksman.records import Event

ROLES = ("banksman_worker", "banksman_gateway", "banksman_notifier", "banksman_sealer")
SCALER = "banksman_scaler"
"""A role that is made only where it gets a password: an autoscaler's, which may ask how much work there is."""
KEEPER = "banksman_keeper"
"""Removes what is over (`retention`). No service has it, so it needs no password: the owner acts as it."""
_LOCK = 0x62616E6B


def migrate(owner_url: str, *, passwords: Mapping[str, str]) -> Sequence[str]:
    """Bring the database up to date and return the migrations that were applied.

    `passwords` maps roles of `ROLES` to their passwords: such a role is made, or its password set. Without one the
    role must exist already; `roles_sql` prints the statements for somebody who may create it. `SCALER` may be left
    out, and `KEEPER` needs no password.
    """
    try:
        conninfo_to_dict(owner_url)
    except psycopg.ProgrammingError:
        raise ConfigurationError("BANKSMAN_DATABASE_URL is not a PostgreSQL URL.") from None
    try:
        with psycopg.connect(owner_url, connect_timeout=5, application_name="banksman-migrate") as conn:
            conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if conn.info.server_version < 150000:
                raise ConfigurationError(
                    f"PostgreSQL {conn.info.server_version // 10000} is too old: Banksman needs 15 or newer."
                )
            _make_roles(conn, passwords)
            applied = _apply(conn)
            _settle(conn)
            _let_the_scaler_in(conn)
            return applied
    except psycopg.OperationalError as error:
        why = " ".join(str(error).split())
        raise Unavailable(f"PostgreSQL cannot be reached for the migration: {why}") from error


def roles_sql() -> str:
    """Statements that make the roles, with passwords to fill in."""
    services = [f"CREATE ROLE {role} LOGIN PASSWORD '…';" for role in ROLES]
    return "\n".join([*services, f"CREATE ROLE {KEEPER} NOLOGIN;", f"GRANT {KEEPER} TO …;  -- the database's owner"])


def _make_roles(conn: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    # Roles belong to the whole server, so migrations of its databases take turns here.
    known = [*ROLES, KEEPER, SCALER]
    existing = {row[0] for row in conn.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (known,))}
    for role in known:
        if role in passwords:
            verb = "ALTER" if role in existing else "CREATE"
            conn.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                    sql.SQL(verb), sql.Identifier(role), sql.Literal(passwords[role])
                )
            )
        elif role == KEEPER and role not in existing:
            _make_the_keeper(conn)
        elif role not in existing and role != SCALER:
            raise ConfigurationError(
                f"The role {role} does not exist and no password for it was given. Set BANKSMAN_"
                f"{role.removeprefix('banksman_').upper()}_PASSWORD, or let a superuser run:\n{roles_sql()}"
            )


def _make_the_keeper(conn: psycopg.Connection) -> None:
    try:
        with conn.transaction():
            conn.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(KEEPER)))
            conn.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(KEEPER)))
    except psycopg.errors.InsufficientPrivilege:
        raise ConfigurationError(f"The role {KEEPER} does not exist. Let a superuser run:\n{roles_sql()}") from None


def _apply(conn: psycopg.Connection) -> Sequence[str]:
    conn.execute(
        """
        CREATE TABLE IF NOT EXISTS migrations (
            number     integer PRIMARY KEY,
            name       text NOT NULL,
            hash       text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """
    )
    done = {row[0]: (row[1], row[2]) for row in conn.execute("SELECT number, name, hash FROM migrations")}
    applied: list[str] = []
    for number, name, body in _files():
        fingerprint = hashlib.sha256(body).hexdigest()
        if number not in done:
            conn.execute(body)
            conn.execute("INSERT INTO migrations (number, name, hash) VALUES (%s, %s, %s)", (number, name, fingerprint))
            applied.append(name)
        elif done[number] != (name, fingerprint):
            raise ConfigurationError(f"Migration {name} is not the one this database was built with.")
    if done and applied:
        audit.append(conn, Event("owner", "schema.migrated", body={"applied": list[Json](applied)}))
    if unknown := sorted(set(done) - {number for number, _, _ in _files()}):
        raise ConfigurationError(
            f"This database has migration {unknown[-1]:04d}, which this release does not know: run a newer release."
        )
    return applied


def _settle(conn: psycopg.Connection) -> None:
    """The audit log came from another PostgreSQL → its places go on from where they were, whatever is counted here."""
    found = conn.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    last = conn.execute("SELECT number, cluster FROM audit_homes ORDER BY number DESC LIMIT 1").fetchone()
    assert found is not None
    if last is not None and last[1] == found[0]:
        return
    # Whoever is writing an event finishes first; whoever comes next writes with the new shift.
    conn.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
    row = conn.execute(
        """
        SELECT greatest(
                   audit_shift(),
                   greatest((SELECT max(xid)::text::bigint FROM audit_events),
                            (SELECT max(xid)::text::bigint FROM endpoints),
                            (SELECT max((convert_from(statement, 'UTF8')::jsonb ->> 'ceiling')::bigint)
                             FROM (SELECT statement FROM audit_heads ORDER BY number DESC LIMIT 1) AS newest))
                   + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint),
               pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        """
    ).fetchone()
    assert row is not None
    shift = 0 if last is None else row[0]
    conn.execute(
        sql.SQL(
            "CREATE OR REPLACE FUNCTION audit_shift() RETURNS bigint LANGUAGE sql IMMUTABLE RETURN {}::bigint"
        ).format(sql.Literal(shift))
    )
    conn.execute(
        """
        INSERT INTO audit_homes (number, cluster, xid, floor)
        VALUES (%s, %s, %s::text::xid8, (SELECT coalesce(max(id), 0) FROM audit_events))
        """,
        (1 if last is None else last[0] + 1, found[0], str(row[1] + shift)),
    )


def _let_the_scaler_in(conn: psycopg.Connection) -> None:
    if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (SCALER,)).fetchone() is not None:
        conn.execute(sql.SQL("GRANT EXECUTE ON FUNCTION work_at_hand() TO {}").format(sql.Identifier(SCALER)))


def _files() -> Sequence[tuple[int, str, bytes]]:
    folder = resources.files("banksman.ledger") / "sql"
    found = [(int(match[1]), file.name, file.read_bytes()) for file in folder.iterdir()
             if (match := re.fullmatch(r"(\d{4})_.*\.sql", file.name))]  # fmt: skip
    return sorted(found)
