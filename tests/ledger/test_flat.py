"""What the sweeps look at every second costs the same however many rows are over, or wait for later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from banksman import ids, ledger
from banksman.ledger import Connection, agents, families, notices, rescue, runs, silence, staff
from banksman.records import NewRun
from tests.conftest import Database

MANY = 5_000
LONG = timedelta(hours=1)

FILL = f"""
INSERT INTO runs (id, agent, requester, status, due_at, prompt, metadata, finished_at)
SELECT gen_random_uuid(), 'plain', 'somebody', status, NULL, '', '', CASE WHEN status = 'finished' THEN now() END
FROM generate_series(1, {MANY}), unnest(ARRAY['finished', 'waiting']) AS status;

INSERT INTO runs (id, agent, requester, status, due_at, prompt, metadata, finished_at, parent_id, reported)
SELECT gen_random_uuid(), agent, requester, status, NULL, '', '', finished_at, id, status = 'finished' FROM runs;

INSERT INTO agents (name, version, tools, paused_at, paused_by)
SELECT 'paused', '1', '{{}}', now(), id FROM people LIMIT 1;
INSERT INTO runs (id, agent, requester, status, due_at, dispatched, prompt, metadata)
SELECT gen_random_uuid(), 'paused', 'somebody', 'queued', 'infinity', false, '', ''
FROM generate_series(1, {MANY});

INSERT INTO schemas (hash, body) VALUES ('', '');
INSERT INTO requests (id, run_id, segment, step, call_id, kind, state, agent, tool, tier, audience, shape,
                      schema_hash, requirement, context, expires_at, due_at, settled_at)
SELECT gen_random_uuid(), id, 0, 0, 'c', 'approval', CASE status WHEN 'waiting' THEN 'open' ELSE 'approved' END,
       'plain', 'pay', 'low', '{{reviewers}}', '', '', '{{}}', '', now() + interval '1 day',
       CASE WHEN status = 'waiting' THEN now() + interval '1 hour' END, CASE WHEN status <> 'waiting' THEN now() END
FROM runs;
INSERT INTO revisions (request_id, revision, action, digest) SELECT id, 1, '', '' FROM requests;

INSERT INTO notices (id, kind, person_id, request_id, revision, state, due_at, expires_at)
SELECT gen_random_uuid(), 'request', (SELECT id FROM people LIMIT 1), id, 1,
       CASE state WHEN 'open' THEN 'due' ELSE 'sent' END,
       CASE state WHEN 'open' THEN now() + interval '1 day' END, now()
FROM requests;
"""

SWEEPS: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "dispatch": ("worker", lambda conn: runs.dispatch(conn, window=100, redispatch=LONG, max_attempts=3)),
    "bury_cancelled": ("worker", rescue.bury_cancelled),
    "set_aside": ("worker", agents.set_aside),
    "children's reports": ("worker", families.unreported),
    "silence": ("gateway", silence.due),
    "notices": ("notifier", lambda conn: notices.claim(conn, lease=LONG)),
}


@pytest.fixture
def crowded(database: Database, gateway_pool: ledger.Pool) -> Database:
    """A database in which much is over, much waits for people, and three runs are due."""
    with ledger.transaction(gateway_pool) as conn:
        staff.upsert(conn, "ana@example.org", name="Ana")
    with psycopg.connect(database.owner, autocommit=True) as conn:
        conn.execute(FILL.encode())
        conn.execute("VACUUM ANALYZE")
    with ledger.transaction(gateway_pool) as conn:
        for _ in range(3):
            new = NewRun(ids.RunId(ids.new()), "plain", "Do it.", "somebody@example.org")
            runs.create(conn, new, hint=timedelta(seconds=-1))
    return database


def test_no_sweep_reads_rows_that_are_over_or_wait_for_later(crowded: Database) -> None:
    read: dict[str, int] = {}
    for name, (role, sweep) in SWEEPS.items():
        with psycopg.connect(getattr(crowded, role)) as conn:
            sweep(conn)
            row = conn.execute(
                "SELECT sum(seq_tup_read + COALESCE(idx_tup_fetch, 0))::int FROM pg_stat_xact_user_tables"
            ).fetchone()
            assert row is not None
            read[name] = row[0]
            conn.rollback()

    assert read["dispatch"] >= 3  # the counting itself works
    assert max(read.values()) < 100, read
