"""Measures the seal of the audit log on a PostgreSQL of its own: python scripts/seal_rates.py [EVENTS].

It writes so many events, three to a transaction, seals and verifies them, and prints for both how many a second, what
an event costs this process and its PostgreSQL backend in CPU, whether the last tenth costs what the first did, and the
memory of this process.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from banksman import ledger
from banksman.embedded import postgres
from banksman.embedded.postgres import Postgres
from banksman.ledger import Connection, migrate
from banksman.sealing import check, sealer
from banksman.signing import Signer, Verifier

SIGNER = Signer("s1", bytes(range(32)))
VERIFIER = Verifier.read(SIGNER.public())


class Mark(NamedTuple):
    """How far it is, and what has been used till then, in seconds."""

    done: int
    clock: float
    own: float
    backend: float


class Pace:
    """What happens to so many events, marked at every tenth."""

    def __init__(self, what: str, events: int, conn: Connection) -> None:
        self._what, self._events = what, events
        self._backend = conn.info.backend_pid
        self._marks = [self._mark(0)]

    def so_far(self, done: int) -> None:
        """Hear how many events are done."""
        if done * 10 >= len(self._marks) * self._events:
            self._marks.append(self._mark(done))

    def tell(self) -> None:
        """Print it."""
        start, end = self._marks[0], self._marks[-1]
        first, last = (sum(self._each(*pair)) for pair in (self._marks[:2], self._marks[-2:]))
        own, backend = self._each(start, end)
        took = end.clock - start.clock
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _print(
            f"{self._what} {end.done:,} events in {took:,.1f} s: {end.done / took:,.0f} a second; CPU each {own:.1f} µs"
            f" and {backend:.1f} in PostgreSQL, together {first:.1f} in the first tenth and {last:.1f} in the last;"
            f" {memory:,.0f} MiB at most"
        )

    def _mark(self, done: int) -> Mark:
        used = Path(f"/proc/{self._backend}/stat").read_text().rpartition(")")[2].split()
        return Mark(
            done, time.perf_counter(), time.process_time(), (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
        )

    @staticmethod
    def _each(old: Mark, new: Mark) -> tuple[float, float]:
        count = (new.done - old.done) / 1e6
        return (new.own - old.own) / count, (new.backend - old.backend) / count


def main(events: int) -> None:
    """Write so many events, three to a transaction; seal them; verify them; print how fast each went."""
    with _server() as server:
        began = time.perf_counter()
        _write(server, events)
        _print(f"load {os.getloadavg()[0]:.1f}; written in {time.perf_counter() - began:,.0f} s")
        pool = ledger.open_pool(server.url(user="banksman_sealer", password="x"), size=1, name="rates")  # noqa: S106  gone in a minute
        try:
            _seal(pool, events)
            _verify(pool, events)
        finally:
            pool.close()


def _write(server: Postgres, events: int) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(
            f"""
            DO $$
            BEGIN
                FOR n IN 1..{events} LOOP
                    INSERT INTO audit_events (actor, action, run_id, request_id, body)
                    VALUES ('worker:1', 'request.opened', gen_random_uuid(), gen_random_uuid(),
                            jsonb_build_object('n', n, 'tool', 'write_file', 'tier', 'medium'));
                    IF n % 3 = 0 THEN
                        COMMIT;
                    END IF;
                END LOOP;
            END $$
            """.encode()
        )


def _seal(pool: ledger.Pool, events: int) -> None:
    with pool.connection() as conn:
        pace = Pace("sealed", events, conn)
    head = None
    while True:
        with ledger.transaction(pool) as conn:
            head = sealer.seal(conn, SIGNER, VERIFIER)
        if head is None:
            break
        pace.so_far(head.size)
    pace.tell()


def _verify(pool: ledger.Pool, events: int) -> None:
    with ledger.transaction(pool) as conn:
        pace = Pace("verified", events, conn)
        report = check.check(conn, VERIFIER, tell=pace.so_far)
    assert not report.findings, report.findings
    pace.tell()


@contextmanager
def _server() -> Generator[Postgres]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgres.running(Path(folder) / "home", durable=False) as server:
            migrate.migrate(server.url(), passwords=dict.fromkeys(migrate.ROLES, "x"))
            yield server


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
