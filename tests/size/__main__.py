"""`make size`: what moves, lists, queues and searches cost among very many runs, beside their cost among a thousand.

It fills a PostgreSQL of its own below FOLDER, measures in turns, prints a table, and removes everything. Four million
runs take 31 GB.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from banksman import vault
from banksman.embedded import postgres
from banksman.ledger import migrate
from tests.size import filling, measuring


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(prog="tests.size", description=__doc__)
    parser.add_argument("--parked", type=int, default=100_000, help="How many runs wait for a person.")
    parser.add_argument("--finished", type=int, default=100_000, help="How many runs are over.")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    chosen = parser.parse_args()
    vault.use("")
    home = Path(tempfile.mkdtemp(prefix="banksman-size-", dir=chosen.folder))
    home.chmod(0o755)
    try:
        with postgres.running(home / "home", durable=False) as server:
            _measure(server, chosen.parked, chosen.finished, chosen.repeat)
    finally:
        shutil.rmtree(home)


def _measure(server: postgres.Postgres, parked: int, finished: int, repeat: int) -> None:
    began = time.monotonic()

    def say(words: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {words}\n")

    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE small")
    migrate.migrate(server.url("small"), passwords=dict.fromkeys(migrate.ROLES, "x"))
    say(f"{filling.UNIT:,} runs of each sort, move by move")
    with psycopg.connect(server.url("small")) as conn:
        crowd = filling.begin(conn)
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        conn.execute("CREATE DATABASE big TEMPLATE small")
    with psycopg.connect(server.url("big"), autocommit=True) as conn:
        filling.copy(conn, crowd, parked // filling.UNIT - 1, finished // filling.UNIT - 1, say)
    for name in ("small", "big"):
        with psycopg.connect(server.url(name), autocommit=True) as conn:
            conn.execute("VACUUM ANALYZE")
    say("measuring")
    options = "-c max_parallel_workers_per_gather=0"  # as the services' pools set it
    with (
        psycopg.connect(server.url("small"), options=options) as one,
        psycopg.connect(server.url("big"), options=options) as other,
    ):
        places = [measuring.Place(conn, crowd.reviewers[0], crowd.parked) for conn in (one, other)]
        sys.stdout.write(f"{'ms, median':24} {filling.UNIT:>10,} {parked:>12,} parked, {finished:,} finished\n")
        for name, (few, many) in measuring.compare(places[0], places[1], repeat=repeat):
            sys.stdout.write(f"{name:24} {few:10.2f} {many:12.2f} {many / few:8.1f} ×\n")


if __name__ == "__main__":
    main()
