"""Measures the seal of the audit log on a PostgreSQL of its own: python scripts/seal_rates.py [EVENTS]."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psycopg

from banksman import ledger
from banksman.embedded import postgres
from banksman.ledger import migrate
from banksman.sealing import check, sealer
from banksman.signing import Signer, Verifier

SIGNER = Signer("s1", bytes(range(32)))
VERIFIER = Verifier.read(SIGNER.public())


def main(events: int) -> None:
    """Write so many events, seal them, verify them; print how many of each in a second and the CPU of this process."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with postgres.running(Path(folder) / "home", durable=False) as server:
            migrate.migrate(server.url(), passwords=dict.fromkeys(migrate.ROLES, "x"))
            with psycopg.connect(server.url()) as conn:
                conn.execute(
                    """
                    INSERT INTO audit_events (actor, action, run_id, request_id, body)
                    SELECT 'worker:1', 'request.opened', gen_random_uuid(), gen_random_uuid(),
                           jsonb_build_object('n', n, 'tool', 'write_file', 'tier', 'medium')
                    FROM generate_series(1, %s) AS n
                    """,
                    (events,),
                )
            with psycopg.connect(server.url(), autocommit=True) as conn:
                conn.execute("VACUUM ANALYZE audit_events")
            pool = ledger.open_pool(server.url(user="banksman_sealer", password="x"), size=1, name="rates")  # noqa: S106  gone in a minute
            try:
                _timed("sealed", events, lambda: _seal(pool))
                _timed("verified", events, lambda: _verify(pool))
            finally:
                pool.close()


def _seal(pool: ledger.Pool) -> None:
    head = True
    while head:
        with ledger.transaction(pool) as conn:
            head = sealer.seal(conn, SIGNER, VERIFIER) is not None


def _verify(pool: ledger.Pool) -> None:
    with ledger.transaction(pool) as conn:
        report = check.check(conn, VERIFIER)
    assert not report.findings, report.findings


def _timed(what: str, events: int, act: object) -> None:
    assert callable(act)
    began, cpu = time.perf_counter(), time.process_time()
    act()
    took, used = time.perf_counter() - began, time.process_time() - cpu
    rate = f"{events / took:,.0f} a second, {used / events * 1e6:.1f} µs of CPU each"
    sys.stdout.write(f"{what:9} {events:,} events: {rate}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
