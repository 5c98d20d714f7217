"""The ledger: the only code that talks to PostgreSQL.

One function is one move, one guarded statement. The connection comes first and the ledger never commits: the caller's
`with ledger.transaction(pool) as conn` is the transaction, whole on one screen. Modules are imported, not functions,
so that calls read `runs.claim`, `requests.open_request`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from banksman.errors import ConfigurationError, Crossed, InvalidInput, Unavailable

Connection = psycopg.Connection[tuple[Any, ...]]
Pool = ConnectionPool[Connection]
IDLE_SECONDS = 15.0
"""So long may a process stand still in a transaction, frozen or cut off, and keep rows from everybody else."""
AWAY = (
    *(psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout),
    *(psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.TransactionTimeout),
)
"""What breaks a statement when PostgreSQL goes, gives us up or is a standby by now: `Unavailable` in a transaction."""
# A line that swallows everything is given up after 10 s, instead of after TCP's quarter of an hour.
_LINE = {"tcp_user_timeout": 10_000, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2}


def open_pool(url: str, *, size: int, name: str) -> Pool:
    """A pool of at most `size` connections that keeps trying while PostgreSQL is away."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigurationError("BANKSMAN_DATABASE_URL is not a PostgreSQL URL.") from None
    line = {"connect_timeout": 3, "application_name": name, **_LINE}
    return ConnectionPool(url, min_size=1, max_size=size, open=True, timeout=5, kwargs=line, configure=_bound)


def _bound(conn: Connection) -> None:
    # To start parallel workers takes longer than any of these statements.
    bound = """SELECT pg_backend_pid(), set_config('idle_in_transaction_session_timeout', %s, false),
                      set_config('max_parallel_workers_per_gather', '0', false)"""
    row = conn.execute(bound, (f"{IDLE_SECONDS * 1000:.0f}",)).fetchone()
    conn.commit()
    # Behind a pooler (PgBouncer) the next transaction may meet another server, which knows no statement of ours.
    if row is None or row[0] != conn.info.backend_pid:
        conn.prepare_threshold = None


@contextmanager
def transaction(pool: Pool) -> Generator[Connection]:
    """One transaction: committed at the end of the block, rolled back by any error in it."""
    try:
        with pool.connection() as conn:
            yield conn
    except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
        raise Crossed(f"PostgreSQL undid this transaction for another one's sake: {error}") from error
    except psycopg.DataError as error:
        raise InvalidInput(f"PostgreSQL cannot hold a value that was given: {' '.join(str(error).split())}") from error
    except (*AWAY, PoolTimeout) as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}") from error


@contextmanager
def once(url: str, *, name: str) -> Generator[Connection]:
    """One transaction on a connection of its own, for a command that ends afterwards."""
    try:
        with psycopg.connect(url, connect_timeout=5, application_name=name) as conn:
            yield conn
    except AWAY as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}") from error
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError("This database has none of Banksman's tables: run `banksman migrate` first.") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(f"This takes the database owner's URL, as `banksman migrate` does: {error}") from None
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise ConfigurationError("BANKSMAN_DATABASE_URL is not a PostgreSQL URL.") from None


def now(conn: Connection) -> datetime:
    """PostgreSQL's time."""
    [[moment]] = conn.execute("SELECT clock_timestamp()").fetchall()
    return moment


def reachable(pool: Pool, *, within: float) -> bool:
    """Whether PostgreSQL answers a statement now."""
    try:
        with pool.connection(timeout=within) as conn:
            conn.execute("SELECT")
    except (psycopg.Error, PoolTimeout):
        return False
    return True
