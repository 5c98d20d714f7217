"""Everything that is sealed, column by column, and how all of it comes under another key while the system runs.

Each step is one statement over a handful of rows that writes only where a value is still the one that was read. What
changes meanwhile is sealed under the current key by whoever changes it, or found at the next pass. This works as the
database's owner; the rows that are kept for good let nothing but their seal be changed (0011_vault.sql).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from banksman import vault
from banksman.errors import NotGenuine, NotHere
from banksman.ledger import Connection

AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Column:
    """One column of sealed values, with its table's primary key, and how `vault` calls its rows."""

    table: LiteralString
    name: LiteralString
    key: Sequence[LiteralString]
    called: LiteralString | None = None
    by: Sequence[LiteralString] | None = None
    """Expressions that a row is called by, where it is not the primary key."""

    @property
    def title(self) -> str:
        """How people read it: table and column."""
        return f"{self.table}.{self.name}"

    def row(self, key: Sequence[Any]) -> vault.Row:
        """The row as `vault` calls it."""
        return (self.called or self.title, *key)


SEALED: Sequence[Column] = (
    *(Column("runs", name, ("id",)) for name in ("prompt", "metadata", "output", "error")),
    Column("snapshots", "messages", ("run_id", "seq")),
    Column("snapshots", "state", ("run_id", "seq")),
    Column("blobs", "body", ("run_id", "hash"), by=("run_id", "encode(hash, 'hex')")),
    Column("schemas", "body", ("hash",), by=("encode(hash, 'hex')",)),
    Column("requests", "context", ("id",)),
    Column("revisions", "action", ("request_id", "revision")),
    Column("votes", "reason", ("id",)),
    Column("votes", "answer", ("id",)),
    Column("decisions", "statement", ("request_id",)),
    Column("renewals", "statement", ("request_id", "start_by"), "decisions.statement", ("request_id",)),
    Column("executions", "result", ("run_id", "step", "call_id", "attempt")),
    Column("policies", "statement", ("version",)),
    Column("grants", "statement", ("id",)),
    Column("remarks", "body", ("id",)),
    Column("preferences", "urls", ("person_id",)),
    Column("endpoints", "url", ("id",)),
    Column("endpoints", "secret", ("id",)),
    Column("endpoints", "old_secret", ("id",), "endpoints.secret"),
    Column("answers", "body", ("actor", "key")),
)


def under(conn: Connection, kid: str | None) -> dict[str, int]:
    """How many values of each column are sealed with a key (None: with none), where there are any."""
    prefix = b"\0" if kid is None else vault.prefix(kid)
    return _counted(conn, "substring({name} FOR %(length)s) = %(prefix)s", {"prefix": prefix, "length": len(prefix)})


def waiting(conn: Connection, kid: str) -> dict[str, int]:
    """How many values of each column are not under this key yet."""
    return _counted(conn, "length({name}) > 0 AND substring({name} FOR 9) <> %(prefix)s", {"prefix": vault.prefix(kid)})


def _counted(conn: Connection, which: LiteralString, values: Mapping[str, Any]) -> dict[str, int]:
    """How many values of each column are such, where there are any."""
    found: dict[str, int] = {}
    for column in SEALED:
        query = sql.SQL(f"SELECT count(*) FROM {{table}} WHERE {which}").format(**_names(column))
        row = conn.execute(query, values).fetchone()
        assert row is not None
        if row[0]:
            found[column.title] = row[0]
    return found


def step(
    conn: Connection, column: Column, kid: str, after: Sequence[Any] | None, *, limit: int = AT_ONCE
) -> tuple[Sequence[Any] | None, int, Sequence[str]]:
    """The next values of a column that are not under the current key, which is `kid`, come under it.

    Where to go on (None: that was all), how many there were, and which cannot be read: those stay as they are. A value
    that somebody changes at this moment stays too.
    """
    names = _names(column)
    places = sql.SQL(", ").join([sql.Placeholder()] * len(column.key))
    past = sql.SQL("") if after is None else sql.SQL("AND ({key}) > ({places})").format(places=places, **names)
    rows = conn.execute(
        sql.SQL(
            """
            SELECT {key}, {by}, CASE WHEN get_byte({name}, 0) = 1 THEN substring({name} FOR {head}) ELSE {name} END
            FROM {table}
            WHERE {name} IS NOT NULL AND length({name}) > 0 AND substring({name} FOR 9) <> %s {past}
            ORDER BY {key}
            LIMIT %s
            """
        ).format(past=past, **names),
        (vault.prefix(kid), *(after or ()), limit),
    ).fetchall()
    size, done = len(column.key), 0
    refused: list[str] = []
    for row in rows:
        key, by, stored = row[:size], row[size:-1], row[-1]
        try:
            anew = _anew(stored, column.row(by))
        except (NotGenuine, NotHere) as error:
            refused.append(f"{column.title}: {error}")
            continue
        done += _put(conn, column, key, stored, anew)
    return (rows[-1][:size] if len(rows) == limit else None), done, refused


def _anew(stored: bytes, row: vault.Row) -> bytes:
    return vault.reseal(stored, row) if stored[0] else vault.seal(vault.open_sealed(stored, row), row)


def _put(conn: Connection, column: Column, key: Sequence[Any], old: bytes, new: bytes) -> int:
    """The whole value in place of a plain one, and a new head in place of an old one."""
    where = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in column.key)
    return conn.execute(
        sql.SQL(
            """
            UPDATE {table}
            SET {name} = %s || substring({name} FROM %s)
            WHERE substring({name} FOR %s) = %s AND (get_byte({name}, 0) = 1 OR length({name}) = %s) AND {where}
            """
        ).format(where=where, **_names(column)),
        (new, len(old) + 1, len(old), old, len(old), *key),
    ).rowcount


def _names(column: Column) -> dict[str, sql.Composable]:
    key = sql.SQL(", ").join(map(sql.Identifier, column.key))
    by = key if column.by is None else sql.SQL(", ").join(map(sql.SQL, column.by))
    name = sql.Identifier(column.name)
    return {"table": sql.Identifier(column.table), "name": name, "key": key, "by": by, "head": sql.Literal(vault.HEAD)}
