"""The agents that workers can run, as the workers themselves listed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from banksman.digest import Json
from banksman.ledger import Connection


def announce(conn: Connection, agents: Mapping[str, tuple[str, Mapping[str, Json]]]) -> None:
    """What this worker brings: agent → (version, tools with their gates)."""
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
