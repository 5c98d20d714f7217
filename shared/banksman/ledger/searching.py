"""What a word in the inbox's search means: which tools, agents and requesters it names, and how many requests that is.

Names are few and are stepped through in their index, one after the other, however many rows have each. What is rare is
then looked up by its ids; only what is common is looked for along the queue, where some of it is soon met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import LiteralString

from banksman.ledger import Connection

RARE = 1000
"""Up to so many requests are looked up by their ids."""


@dataclass(frozen=True, slots=True)
class Matching:
    """A condition on `requests` and `runs`, and what it asks of; `any` is whether anything may meet it."""

    any: bool
    where: LiteralString = "false"
    values: Mapping[str, object] = field(default_factory=dict[str, object])


def find(conn: Connection, text: str, *, settled: bool) -> Matching:
    """What is found in a tool, an agent or a requester, among open or settled requests; all of them for no text."""
    if not text:
        return Matching(any=True)
    state = "state <> 'open'" if settled else "state = 'open'"
    which = {"text": text}
    tools, agents, requesters = (
        [row[0] for row in conn.execute(_NAMES.format(name, table, where).encode(), which)]
        for name, table, where in (
            ("tool", "requests", state),
            ("agent", "requests", "true"),
            ("requester", "runs", "true"),
        )
    )
    if not (tools or agents or requesters):
        return Matching(any=False)
    names = {"tools": tools, "agents": agents, "requesters": requesters}
    asking = "true" if settled else "runs.status IN ('waiting', 'stuck', 'running')"
    rows = conn.execute(
        f"""
        (SELECT id FROM requests WHERE tool = ANY(%(tools)s) AND {state} LIMIT {RARE + 1})
        UNION ALL
        (SELECT id FROM requests WHERE agent = ANY(%(agents)s) AND {state} LIMIT {RARE + 1})
        UNION ALL
        (SELECT requests.id
         FROM runs
         JOIN requests ON run_id = runs.id
         WHERE requester = ANY(%(requesters)s) AND {asking} AND {state}
         LIMIT {RARE + 1})
        LIMIT {RARE + 1}
        """.encode(),
        names,
    ).fetchall()
    if len(rows) <= RARE:
        return Matching(bool(rows), "requests.id = ANY(%(rare)s)", {"rare": [row[0] for row in rows]})
    return Matching(
        True,
        """(tool = ANY(%(tools)s) OR requests.agent = ANY(%(agents)s)
          OR requester = ANY(%(requesters)s))""",
        names,
    )


_NAMES = """
    WITH RECURSIVE each (name) AS (
        (SELECT {0} FROM {1} WHERE {2} ORDER BY {0} LIMIT 1)
        UNION ALL
        SELECT (SELECT {0} FROM {1} WHERE {2} AND {0} > each.name ORDER BY {0} LIMIT 1)
        FROM each
        WHERE name IS NOT NULL
    )
    SELECT name FROM each WHERE position(lower(%(text)s) IN lower(name)) > 0
"""
