"""Measures what docs/sizing.md rests on: a stack with its defaults, N approved runs, and what they left and took.

    .venv/bin/python scripts/sizing.py --runs 500

It prints, per run: bytes in PostgreSQL by table (indexes and TOAST included), bytes of WAL, commits, rows, CPU by part;
and of the whole: connections by process, the broker's memory. Then what the model of docs/sizing.md makes of that.
Nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import redis

from banksman.bench import load, stack
from banksman.bench.cost import by_part
from banksman.bench.load import Way

_SIZES = """
    SELECT relname, pg_total_relation_size(oid)
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""
_SETTLE_SECONDS = 3.0
_PEAK = 3.0
"""The busiest hour has so many times the runs of the mean hour."""
_BUSY = 0.6
"""So much of a core is used in the busiest hour."""
_OF_A_WORKER, _OF_A_GATEWAY, _OF_A_NOTIFIER = 6, 17, 14
"""Connections that a process opens at most: the pools of their `app.py`, and the sealer's."""
_DAILY = (10_000, 100_000, 1_000_000, 10_000_000)


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="banksman-sizing-") as folder,
        stack.running(Path(folder) / "stack", chosen.workers),
    ):
        facts = json.loads((Path(folder) / "stack/data/stack.json").read_text())
        found = measured(facts, chosen.runs, chosen.clients)
    if chosen.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _print(found)
        _model(found)
    return 0


def measured(facts: Mapping[str, Any], runs: int, clients: int) -> dict[str, Any]:
    """What `runs` approved runs took and left on this stack, divided by them where that makes sense."""
    way = Way(facts["gateway_url"], facts["submit_key"], facts["reviewers"][0]["token"])
    load.all_at_once(way, 50, clients, lambda _: None)  # what the first runs cost once is not theirs alone
    with psycopg.connect(facts["database_url"], autocommit=True) as conn:
        time.sleep(_SETTLE_SECONDS)
        before = _counted(conn, facts["pids"])
        _, seconds = load.all_at_once(way, runs, clients, lambda _: None)
        connections = _connections(conn)
        time.sleep(_SETTLE_SECONDS)
        after = _counted(conn, facts["pids"])
    with redis.Redis.from_url(facts["broker_url"]) as broker:
        memory: Any = broker.info("memory")
    per_run = {
        group: {name: (after[group][name] - before[group].get(name, 0)) / runs for name in after[group]}
        for group in after
    }
    return {
        "runs": runs,
        "runs_per_second": runs / seconds,
        "load": os.getloadavg()[0],
        "connections": connections,
        "broker_peak_bytes": memory["used_memory_peak"],
        **per_run,
    }


def _counted(conn: psycopg.Connection, pids: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Everything that grows: sizes by table, rows, WAL, commits, CPU in milliseconds."""
    sizes = {name: float(size) for name, size in conn.execute(_SIZES).fetchall()}
    rows = {
        name: float(number)
        for name, number in conn.execute("SELECT relname, n_tup_ins FROM pg_stat_user_tables").fetchall()
    }
    [wal, commits] = conn.execute(
        """
        SELECT pg_current_wal_lsn() - '0/0', xact_commit FROM pg_stat_database WHERE datname = current_database()
        """
    ).fetchall()[0]
    cpu = {part: spent * 1000 for part, spent in by_part(pids).items()}
    return {"bytes": sizes, "rows": rows, "counts": {"wal_bytes": float(wal), "commits": float(commits)}, "cpu_ms": cpu}


def _connections(conn: psycopg.Connection) -> dict[str, int]:
    return dict(
        conn.execute(
            """
            SELECT application_name, count(*)
            FROM pg_stat_activity
            WHERE starts_with(application_name, 'banksman-')
            GROUP BY application_name
            """
        ).fetchall()
    )


def _print(found: Mapping[str, Any]) -> None:
    say = sys.stdout.write
    say(f"{found['runs']} runs, {found['runs_per_second']:.1f} a second, load {found['load']:.1f}\n\n")
    say(f"{'table':<16}{'bytes/run':>12}{'rows/run':>10}\n")
    for name, size in sorted(found["bytes"].items(), key=lambda item: -item[1]):
        if size >= 1 or found["rows"].get(name, 0) >= 0.01:
            say(f"{name:<16}{size:>12,.0f}{found['rows'].get(name, 0):>10.2f}\n")
    say(f"{'all':<16}{sum(found['bytes'].values()):>12,.0f}{sum(found['rows'].values()):>10.2f}\n\n")
    say(f"WAL {found['counts']['wal_bytes']:,.0f} bytes/run, {found['counts']['commits']:.1f} commits/run\n")
    say("CPU ms/run: " + ", ".join(f"{name} {spent:.1f}" for name, spent in found["cpu_ms"].items()) + "\n")
    say("connections: " + ", ".join(f"{name} {number}" for name, number in found["connections"].items()) + "\n")
    say(f"broker at most {found['broker_peak_bytes'] / 2**20:.1f} MiB\n")


def _model(found: Mapping[str, Any]) -> None:
    """What so many approved runs a day want, at the busiest hour."""
    say = sys.stdout.write
    stored, cpu, counts = sum(found["bytes"].values()), found["cpu_ms"], found["counts"]
    say("\nruns/day    peak/s  worker gateway notifier postgres  GB/day  WAL GB/day  commits/s  connections\n")
    for runs in _DAILY:
        second = runs / 86_400 * _PEAK
        cores = {name: second * cpu[name] / 1000 / _BUSY for name in ("worker", "gateway", "notifier", "postgres")}
        workers, gateways, notifiers = (max(1, math.ceil(cores[name])) for name in ("worker", "gateway", "notifier"))
        workers = max(2, workers)
        opened = workers * _OF_A_WORKER + gateways * _OF_A_GATEWAY + notifiers * _OF_A_NOTIFIER
        say(
            f"{runs:<12,}{second:>6.1f}{cores['worker']:>8.2f}{cores['gateway']:>8.2f}{cores['notifier']:>9.2f}"
            f"{cores['postgres']:>9.2f}{stored * runs / 1e9:>8.1f}{counts['wal_bytes'] * runs / 1e9:>12.1f}"
            f"{counts['commits'] * second:>11,.0f}{opened:>13,}\n"
        )


if __name__ == "__main__":
    sys.exit(main())
