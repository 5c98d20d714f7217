"""The walls in PostgreSQL: every statement that a service has no business with is refused, whatever its code says."""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import Database

SEAL = ("audit_homes", "audit_leaves", "audit_nodes", "audit_heads")
HEARING = ("preferences", "inboxes", "endpoints", "deliveries")
TABLES = [
    *(
        "runs",
        "delegations",
        "snapshots",
        "blobs",
        "schemas",
        "requests",
        "revisions",
        "votes",
        "decisions",
        "renewals",
        "executions",
    ),
    *(
        "notices",
        "people",
        "keys",
        "sessions",
        "answers",
        "agents",
        "batches",
        "sign_ins",
        "audit_events",
        "migrations",
    ),
    *("preferences", "inboxes", "endpoints", "deliveries"),
    "policies",
    *("withdrawals", "absences", "lookings", "remarks"),
    "grants",
    *SEAL,
]

KEPT = (
    *("runs", "delegations", "snapshots", "blobs", "requests", "revisions", "votes", "withdrawals", "decisions"),
    *("renewals", "executions", "notices", "remarks", "lookings", "deliveries", "grants", "batches", "answers"),
)
"""What a run is made of: the keeper removes it, once the run is over."""
WRITES: dict[str, set[tuple[str, str]]] = {
    "worker": {
        ("runs", "INSERT"),
        ("runs", "UPDATE"),
        ("delegations", "INSERT"),
        ("snapshots", "INSERT"),
        ("blobs", "INSERT"),
        ("schemas", "INSERT"),
        ("requests", "INSERT"),
        ("requests", "UPDATE"),
        ("revisions", "INSERT"),
        ("grants", "UPDATE"),
        ("executions", "INSERT"),
        ("executions", "UPDATE"),
        ("notices", "INSERT"),
        ("agents", "INSERT"),
        ("agents", "UPDATE"),
        ("audit_events", "INSERT"),
    },
    "gateway": {
        ("runs", "INSERT"),
        ("runs", "UPDATE"),
        ("agents", "UPDATE"),
        ("batches", "INSERT"),
        ("batches", "UPDATE"),
        ("requests", "UPDATE"),
        ("revisions", "INSERT"),
        ("votes", "INSERT"),
        ("decisions", "INSERT"),
        ("renewals", "INSERT"),
        ("policies", "INSERT"),
        ("grants", "INSERT"),
        ("grants", "UPDATE"),
        ("people", "INSERT"),
        ("people", "UPDATE"),
        ("keys", "INSERT"),
        ("keys", "UPDATE"),
        ("sessions", "INSERT"),
        ("sessions", "UPDATE"),
        ("answers", "INSERT"),
        ("answers", "UPDATE"),
        ("answers", "DELETE"),
        ("sign_ins", "INSERT"),
        ("sign_ins", "UPDATE"),
        ("sign_ins", "DELETE"),
        ("notices", "INSERT"),
        ("notices", "UPDATE"),
        ("audit_events", "INSERT"),
        ("preferences", "INSERT"),
        ("preferences", "UPDATE"),
        ("endpoints", "INSERT"),
        ("endpoints", "UPDATE"),
        ("deliveries", "UPDATE"),
        ("withdrawals", "INSERT"),
        ("remarks", "INSERT"),
        ("absences", "INSERT"),
        ("absences", "UPDATE"),
        ("lookings", "INSERT"),
        ("lookings", "UPDATE"),
        ("lookings", "DELETE"),
    },
    "notifier": {
        ("notices", "UPDATE"),
        ("audit_events", "INSERT"),
        ("inboxes", "INSERT"),
        ("inboxes", "UPDATE"),
        ("endpoints", "UPDATE"),
        ("deliveries", "INSERT"),
        ("deliveries", "UPDATE"),
        ("deliveries", "DELETE"),
    },
    "sealer": {("audit_leaves", "INSERT"), ("audit_nodes", "INSERT"), ("audit_heads", "INSERT")},
    "keeper": {
        *((table, "DELETE") for table in KEPT),
        *((table, "UPDATE") for table in ("runs", "requests", "executions", "grants", "notices", "deliveries")),
        ("audit_events", "INSERT"),
    },
}

UNREADABLE: dict[str, set[str]] = {
    "sealer": set(TABLES) - {"audit_events", *SEAL},
    "keeper": set(TABLES) - set(KEPT),
    "worker": {
        *SEAL,
        *("keys", "sessions", "answers", "sign_ins", "notices", "audit_events", "migrations"),
        *("withdrawals", "absences", "lookings", "remarks"),
        *HEARING,
    },
    "gateway": {"migrations", "inboxes"},
    "notifier": set(TABLES) - {"notices", "requests", "runs", "people", *HEARING},
}


@pytest.mark.parametrize("role", list(WRITES))
def test_a_service_may_write_only_what_is_its_own(role: str, database: Database) -> None:
    with psycopg.connect(getattr(database, role)) as conn:
        rows = conn.execute(
            """
            SELECT relname, privilege
            FROM pg_class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
              AND (has_table_privilege(oid, privilege)
                   OR privilege IN ('INSERT', 'UPDATE') AND has_any_column_privilege(oid, privilege))
            """
        ).fetchall()

    assert set(rows) == WRITES[role]


def refused(conn: psycopg.Connection, statement: str) -> bool:
    """Whether the role lacks the right, whatever else may be wrong with the statement."""
    try:
        with conn.transaction():
            conn.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize("role", list(WRITES))
def test_nobody_removes_rows_of_another(role: str, database: Database) -> None:
    with psycopg.connect(getattr(database, role)) as conn:
        let_through = [
            statement
            for table in TABLES
            for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}")
            if not (statement.startswith("DELETE") and (table, "DELETE") in WRITES[role])
            and not refused(conn, statement)
        ]

    assert let_through == []


@pytest.mark.parametrize("role", list(WRITES))
def test_a_service_reads_only_what_it_needs(role: str, database: Database) -> None:
    with psycopg.connect(getattr(database, role)) as conn:
        read = {table for table in UNREADABLE[role] if not refused(conn, f"SELECT * FROM {table}")}

    assert read == set()


FORBIDDEN: list[tuple[str, str]] = [
    ("worker", "INSERT INTO votes DEFAULT VALUES"),
    ("worker", "INSERT INTO decisions DEFAULT VALUES"),
    ("worker", "INSERT INTO renewals DEFAULT VALUES"),
    ("worker", "INSERT INTO withdrawals DEFAULT VALUES"),
    ("worker", "INSERT INTO absences DEFAULT VALUES"),
    ("worker", "INSERT INTO remarks DEFAULT VALUES"),
    ("worker", "INSERT INTO people DEFAULT VALUES"),
    ("worker", "INSERT INTO policies DEFAULT VALUES"),
    ("worker", "INSERT INTO grants DEFAULT VALUES"),
    ("worker", "UPDATE grants SET most = 1000"),
    ("worker", "UPDATE grants SET expires_at = now()"),
    ("worker", "UPDATE grants SET revoked_at = NULL"),
    ("gateway", "UPDATE grants SET used = 0"),
    ("gateway", "UPDATE grants SET statement = ''"),
    ("gateway", "UPDATE policies SET statement = ''"),
    ("gateway", "INSERT INTO policies (created_at) VALUES (now())"),
    ("worker", "UPDATE requests SET revision = 2"),
    ("worker", "UPDATE requests SET expires_at = now()"),
    ("worker", "UPDATE revisions SET digest = ''"),
    ("worker", "UPDATE people SET disabled_at = NULL"),
    ("worker", "UPDATE runs SET requester_id = NULL"),
    ("worker", "UPDATE runs SET prompt = ''"),
    ("worker", "INSERT INTO audit_events (actor, action, at) VALUES ('w', 'x', now())"),
    ("worker", "INSERT INTO audit_events (actor, action, xid) VALUES ('w', 'x', '1')"),
    ("gateway", "INSERT INTO executions DEFAULT VALUES"),
    ("gateway", "UPDATE executions SET state = 'finished'"),
    ("gateway", "INSERT INTO requests DEFAULT VALUES"),
    ("gateway", "UPDATE decisions SET verdict = 'approved'"),
    ("gateway", "UPDATE renewals SET start_by = now()"),
    ("gateway", "UPDATE requests SET requirement = '{}'"),
    ("gateway", "UPDATE votes SET verdict = 'approve'"),
    ("gateway", "UPDATE withdrawals SET mac = ''"),
    ("gateway", "UPDATE absences SET until_at = now()"),
    ("gateway", "UPDATE absences SET stand_in_id = person_id"),
    ("gateway", "UPDATE remarks SET body = ''"),
    ("gateway", "UPDATE revisions SET action = ''"),
    ("gateway", "UPDATE runs SET output = ''"),
    ("gateway", "UPDATE runs SET fence = 0"),
    ("gateway", "INSERT INTO snapshots DEFAULT VALUES"),
    ("notifier", "UPDATE requests SET state = 'approved'"),
    ("notifier", "UPDATE notices SET code_tries = 0"),
    ("notifier", "UPDATE notices SET person_id = person_id"),
    ("notifier", "SELECT prompt FROM runs"),
    ("notifier", "SELECT context FROM requests"),
    ("notifier", "INSERT INTO notices DEFAULT VALUES"),
    ("notifier", "UPDATE preferences SET email = true"),
    ("notifier", "UPDATE endpoints SET url = ''"),
    ("notifier", "UPDATE endpoints SET secret = ''"),
    ("notifier", "SELECT body FROM audit_events"),
    ("gateway", "UPDATE endpoints SET url = ''"),
    ("gateway", "INSERT INTO deliveries DEFAULT VALUES"),
    ("gateway", "UPDATE deliveries SET endpoint_id = endpoint_id"),
    ("notifier", "SELECT prompt, batch_id FROM runs"),
    ("keeper", "UPDATE runs SET status = 'queued'"),
    ("keeper", "UPDATE runs SET finished_at = now()"),
    ("keeper", "UPDATE requests SET state = 'approved'"),
    ("keeper", "UPDATE executions SET state = 'started'"),
    ("keeper", "UPDATE votes SET verdict = 'approve'"),
    ("keeper", "INSERT INTO votes DEFAULT VALUES"),
    ("keeper", "UPDATE grants SET most = 1000"),
]


@pytest.mark.parametrize("role", list(WRITES))
def test_a_statement_over_the_wall_is_refused(role: str, database: Database) -> None:
    with psycopg.connect(getattr(database, role)) as conn:
        let_through = [text for who, text in FORBIDDEN if who == role and not refused(conn, text)]

    assert let_through == []


def test_even_the_owner_is_stopped_at_the_append_only_tables(database: Database) -> None:
    tables = ("votes", "withdrawals", "remarks", "decisions", "renewals", "revisions", "audit_events", "policies")
    tables += SEAL
    with psycopg.connect(database.owner) as conn:
        let_through = [
            statement
            for table in tables
            for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE")
            if not refused(conn, statement)
        ]

    assert let_through == []
