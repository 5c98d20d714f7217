"""Moves, pages and lists read no more rows when many more runs wait and are over; what is timed is in `make size`."""

from __future__ import annotations

import psycopg

from banksman import vault
from banksman.ledger import Connection
from tests.conftest import Database
from tests.size import filling, measuring

UNIT = 110
"""More than a page of the inbox shows."""
COPIES = 30
COUNTS_ALL = {"gauges"}
"""What counts all that waits, for a monitor that asks now and then."""
SORTED = {"inbox others", "inbox counts", "search found"}
"""Of so few rows PostgreSQL reads and sorts all; among very many it goes along the queue, which `make size` shows."""


def rows_read(conn: Connection, place: measuring.Place) -> dict[str, int]:
    """How many rows of tables each operation reads."""
    found: dict[str, int] = {}
    for name, ready in measuring.operations(place).items():
        move = ready()
        before = _so_far(conn)
        move()
        found[name] = _so_far(conn) - before
        conn.rollback()
    return found


def _so_far(conn: Connection) -> int:
    row = conn.execute(
        "SELECT sum(seq_tup_read + COALESCE(idx_tup_fetch, 0))::int FROM pg_stat_xact_user_tables"
    ).fetchone()
    assert row is not None
    return row[0]


def test_nothing_reads_more_rows_in_a_database_thirty_times_as_large(database: Database) -> None:
    vault.use("")
    with psycopg.connect(database.owner) as conn:
        crowd = filling.begin(conn, UNIT)
    place = crowd.reviewers[0], crowd.parked
    with psycopg.connect(database.owner, autocommit=True) as conn:
        conn.execute("VACUUM ANALYZE")
    with psycopg.connect(database.owner) as conn:
        small = rows_read(conn, measuring.Place(conn, *place))
    with psycopg.connect(database.owner, autocommit=True) as conn:
        filling.copy(conn, crowd, COPIES, COPIES, lambda _: None)
        conn.execute("VACUUM ANALYZE")
    with psycopg.connect(database.owner) as conn:
        conn.execute("SET max_parallel_workers_per_gather = 0")  # as the services' pools do
        big = rows_read(conn, measuring.Place(conn, *place))

    grown = {name: (small[name], many) for name, many in big.items() if many > 2 * small[name] + 100}
    assert max(small.values()) > UNIT  # the counting itself works
    assert grown.keys() <= COUNTS_ALL | SORTED, grown
