"""Measures what the events of the audit log cost a run: PYTHONPATH=. .venv/bin/python scripts/audit_cost.py [ROUNDS].

Approved runs of the benchmark's agent go through worker and gateway in this process, on a PostgreSQL and a Valkey of
its own, ten with events and ten without, in turns. What is printed are medians over such pairs, in milliseconds of CPU
for each run: of this process, and of PostgreSQL.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.conftest import VAULT_KEYS
from tests.worker.conftest import Site, sites

from banksman import ledger, vault
from banksman.bench import subject
from banksman.bench.cost import cpu_seconds
from banksman.embedded import postgres, valkey
from banksman.ledger import audit, migrate, staff
from banksman.records import Event
from banksman.signing import Signer, Verifier
from banksman.states import RunStatus
from banksman.wire import Wire

RUNS = 10
SIGNER = Signer("k1", bytes(range(32)))
VERIFIER = Verifier.read(SIGNER.public())


def main(rounds: int) -> None:
    """Run so many rounds of both kinds, and print what they cost."""
    vault.use(VAULT_KEYS)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        with (
            postgres.running(home / "postgres", durable=False) as server,
            valkey.running(home / "valkey", durable=False) as broker,
        ):
            migrate.migrate(server.url(), passwords=dict.fromkeys(migrate.ROLES, "x"))
            pools = [
                ledger.open_pool(server.url(user=f"banksman_{role}", password="x"), size=8, name=role)  # noqa: S106  gone in a minute
                for role in ("worker", "gateway")
            ]
            wire = Wire(broker.url(), expires=30)
            worker, gateway = pools
            with ledger.transaction(gateway) as conn:
                people = (
                    staff.upsert(conn, "ana@example.org", name="Ana"),
                    staff.upsert(conn, "ben@example.org", name="Ben"),
                )
            postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
            try:
                with sites(worker, gateway, wire, SIGNER, VERIFIER, people) as make:
                    _measure(make(subject.agents), postmaster, rounds)
            finally:
                wire.close()
                for pool in pools:
                    pool.close()


def _measure(site: Site, postmaster: int, rounds: int) -> None:
    used: list[dict[bool, tuple[float, float]]] = []
    for number in range(rounds + 1):
        spent: dict[bool, tuple[float, float]] = {}
        for told in (True, False) if number % 2 else (False, True):
            with pytest.MonkeyPatch.context() as patch:
                if not told:
                    patch.setattr(audit, "append", _silent)
                before = _used(postmaster)
                for _ in range(RUNS):
                    _a_run(site)
                spent[told] = _since(before, postmaster)
        if number:  # the first round warms up
            used.append(spent)
    own, theirs = (statistics.median(one[True][i] - one[False][i] for one in used) for i in (0, 1))
    bare = [statistics.median(one[False][i] for one in used) for i in (0, 1)]
    with ledger.transaction(site.gateway) as conn:
        row = conn.execute("SELECT count(*) FROM audit_events").fetchone()
    assert row is not None
    sys.stdout.write(
        f"{row[0] / RUNS / (rounds + 1):.1f} events a run. Without them a run takes {bare[0]:.2f} ms and {bare[1]:.2f}"
        f" in PostgreSQL; with them {own:+.2f} and {theirs:+.2f}: medians of {rounds} pairs of {RUNS} runs each, load"
        f" {os.getloadavg()[0]:.1f}.\n"
    )


def _silent(conn: ledger.Connection, *events: Event) -> None:
    del conn, events


def _a_run(site: Site) -> None:
    run_id, [request] = site.waiting("bench", subject.prompt())
    site.vote(request, "approve")
    assert site.advance(run_id).status is RunStatus.FINISHED


def _used(postmaster: int) -> tuple[float, float]:
    return time.process_time(), cpu_seconds({"postgres": postmaster})["postgres"]


def _since(before: tuple[float, float], postmaster: int) -> tuple[float, float]:
    after = _used(postmaster)
    return (after[0] - before[0]) / RUNS * 1000, (after[1] - before[1]) / RUNS * 1000


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
