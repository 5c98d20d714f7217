"""What became of the calls that were under way when a run was stopped: said in the run's row, call by call.

Whoever moves a run to *cancelled* tells it in the same transaction, and whoever stores the result of such a call later
tells it again, so the row says what the journal says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from banksman import vault
from banksman.digest import Json
from banksman.ids import RunId
from banksman.ledger import Connection

_HEAD = "The run was stopped in the middle of a tool call."
_SHOWN = 300


def tell(conn: Connection, run_ids: Sequence[RunId]) -> bool:
    """Cancelled → cancelled, with an error that names every call that was under way; whether there was one."""
    rows = conn.execute(
        """
        SELECT DISTINCT ON (run_id, step, call_id)
               run_id, step, call_id, attempt, tool, outcome, result, error, executions.state = 'started' AS lost,
               executions.finished_at >= cancel_at, executions.started_at, EXISTS (
                   SELECT FROM requests
                   WHERE requests.run_id = executions.run_id AND requests.step = executions.step
                     AND requests.call_id = executions.call_id AND kind = 'outcome' AND requests.state = 'answered')
        FROM executions
        JOIN runs ON runs.id = run_id
        WHERE run_id = ANY(%s) AND status = 'cancelled'
        ORDER BY run_id, step, call_id, attempt DESC
        """,
        (list(run_ids),),
    ).fetchall()
    said: defaultdict[RunId, list[str]] = defaultdict(list)
    before: dict[RunId, bytes | None] = {}
    for run_id, step, call_id, attempt, tool, outcome, result, error, lost, late, _, settled in sorted(
        rows, key=lambda row: row[10]
    ):
        if (lost and not settled) or late:
            context = ("executions.result", run_id, step, call_id, attempt)
            stored = None if result is None else json.loads(vault.open_sealed(result, context))
            said[run_id].append(_became(tool, outcome, stored))
            before[run_id] = error
    for run_id, calls in said.items():
        sealed = before[run_id]
        last = "" if sealed is None else vault.open_sealed(sealed, ("runs.error", run_id)).decode()
        text = "\n".join(filter(None, [last.partition(_HEAD)[0].rstrip(), _HEAD, *calls]))
        conn.execute(
            "UPDATE runs SET error = %s WHERE id = %s AND status = 'cancelled'",
            (vault.seal(text.encode("utf-8", "replace"), ("runs.error", run_id)), run_id),
        )
    return bool(said)


def _became(tool: str, outcome: str | None, stored: dict[str, Json] | None) -> str:
    if outcome is None:
        return f"{tool} had started and nobody knows whether it happened."
    if outcome == "deferred":
        return f"{tool} had started and asked for a decision first; it was not carried out."
    value = (stored or {}).get("value")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … (cut)"
    return f"{tool} had started and {'returned' if outcome == 'returned' else 'ended with'}: {shown}"
