"""The agents that workers can run, as the workers themselves listed them; and which of them are paused.

While an agent is paused no segment of its runs starts: `runs.claim` refuses. So that 100,000 of its runs cost nothing
meanwhile, the dispatcher sets each of them aside once, due at infinity, where it does not look again. It holds the
paused agents' rows while it does, so that a resumption comes either before (the dispatcher then sees no pause) or after
(it then finds every run that was set aside).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from banksman.digest import Json
from banksman.errors import NotFound
from banksman.ids import PersonId
from banksman.ledger import Connection
from banksman.records import Agent

_AT_ONCE = 5000


def announce(conn: Connection, agents: Mapping[str, tuple[str, Mapping[str, Json]]]) -> None:
    """What this worker brings: agent → (version, tools with their gates). A pause stays."""
    for name in sorted(agents):
        version, tools = agents[name]
        conn.execute(
            """
            INSERT INTO agents (name, version, tools) VALUES (%s, %s, %s)
            ON CONFLICT (name) DO UPDATE
            SET version = EXCLUDED.version, tools = EXCLUDED.tools, seen_at = clock_timestamp()
            """,
            (name, version, Jsonb(dict(tools))),
        )


def names(conn: Connection) -> Sequence[str]:
    """Every agent that some worker has announced."""
    return [row[0] for row in conn.execute("SELECT name FROM agents ORDER BY name").fetchall()]


def everyone(conn: Connection) -> Sequence[Agent]:
    """Every agent that some worker has announced, as it stands."""
    return [_agent(row) for row in conn.execute(f"{_SELECT} ORDER BY agents.name").fetchall()]


def find(conn: Connection, name: str) -> Agent | None:
    """The agent, if some worker has announced it."""
    row = conn.execute(f"{_SELECT} WHERE agents.name = %s", (name,)).fetchone()
    return None if row is None else _agent(row)


def get(conn: Connection, name: str) -> Agent:
    """The agent, or `NotFound`."""
    found = find(conn, name)
    if found is None:
        raise NotFound(f"There is no agent {name!r}.")
    return found


def pause(conn: Connection, name: str, by: PersonId) -> bool:
    """Not paused → paused: from now on no segment of its runs starts. False: it was paused already."""
    return (
        conn.execute(
            "UPDATE agents SET paused_at = clock_timestamp(), paused_by = %s WHERE name = %s AND paused_at IS NULL",
            (by, name),
        ).rowcount
        == 1
    )


def resume(conn: Connection, name: str) -> bool:
    """Paused → not paused, and every run that was set aside is due now. False: it was not paused."""
    resumed = conn.execute(
        "UPDATE agents SET paused_at = NULL, paused_by = NULL WHERE name = %s AND paused_at IS NOT NULL", (name,)
    ).rowcount
    if not resumed:
        return False
    # A statement of its own: whatever a dispatcher set aside before it let the agent's row go is seen here.
    conn.execute(
        """
        WITH picked AS (
            SELECT id FROM runs WHERE agent = %s AND status = 'queued' AND due_at = 'infinity' ORDER BY id FOR UPDATE
        )
        UPDATE runs SET due_at = clock_timestamp() FROM picked WHERE runs.id = picked.id
        """,
        (name,),
    )
    return True


def set_aside(conn: Connection) -> Sequence[str]:
    """Due runs of paused agents → queued and due at infinity, also those of dead workers; the paused agents' names.

    An agent whose row somebody writes at this moment counts as not paused: its claims are refused all the same.
    """
    names_ = [
        row[0]
        for row in conn.execute("SELECT name FROM agents WHERE paused_at IS NOT NULL FOR SHARE SKIP LOCKED").fetchall()
    ]
    if names_:
        conn.execute(
            """
            WITH picked AS (
                SELECT id
                FROM runs
                WHERE status IN ('queued', 'running') AND due_at <= statement_timestamp() AND cancel_at IS NULL
                  AND agent = ANY(%(paused)s)
                LIMIT %(limit)s
                FOR UPDATE SKIP LOCKED
            )
            UPDATE runs
            SET status = 'queued', due_at = 'infinity', dispatched = false, owner = NULL, fence = fence + 1
            FROM picked
            WHERE runs.id = picked.id
            """,
            {"paused": names_, "limit": _AT_ONCE},
        )
    return names_


_SELECT = """
    SELECT agents.name, version, tools, seen_at, paused_at, people.email
    FROM agents
    LEFT JOIN people ON people.id = paused_by
"""


def _agent(row: Sequence[Any]) -> Agent:
    name, version, tools, seen_at, paused_at, paused_by = row
    return Agent(name, version, tools, seen_at, paused_at, paused_by)
