"""What became of the calls that were under way when a run was stopped: said in the run's row, call by call.

Whoever moves a run to *cancelled* tells it in the same transaction, and whoever stores the result of such a call later
tells it again, so the row says what the journal says. Nobody's move may fail for that: where a value cannot be read the
run's error stays as it is.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from banksman import vault
from banksman.digest import Json
from banksman.errors import NotGenuine, NotHere
from banksman.ids import RunId, show
from banksman.ledger import Connection

_HEAD = "The run was stopped in the middle of a tool call."
_SHOWN = 300

log = logging.getLogger(__name__)


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
    calls: defaultdict[RunId, list[Sequence[Any]]] = defaultdict(list)
    for run_id, *call, lost, late, _, settled in sorted(rows, key=lambda row: row[10]):
        if (lost and not settled) or late:
            calls[run_id].append(call)
    for run_id, under_way in calls.items():
        try:
            text = _told(run_id, under_way)
        except (NotGenuine, NotHere, ValueError) as error:
            log.error("The calls under way in %s are not named in its error: %s", show("run", run_id), error)  # noqa: TRY400  where it happened says nothing
            continue
        conn.execute(
            "UPDATE runs SET error = %s WHERE id = %s AND status = 'cancelled'",
            (vault.seal(text.encode("utf-8", "replace"), ("runs.error", run_id)), run_id),
        )
    return bool(calls)


def _told(run_id: RunId, under_way: Sequence[Sequence[Any]]) -> str:
    """What the row's error says by now, with every call that was under way."""
    said: list[str] = []
    last = ""
    for step, call_id, attempt, tool, outcome, result, error in under_way:
        context = ("executions.result", run_id, step, call_id, attempt)
        stored = None if result is None else json.loads(vault.open_sealed(result, context))
        said.append(_became(tool, outcome, stored))
        last = "" if error is None else vault.open_sealed(error, ("runs.error", run_id)).decode()
    return "\n".join(filter(None, [last.partition(_HEAD)[0].rstrip(), _HEAD, *said]))


def _became(tool: str, outcome: str | None, stored: dict[str, Json] | None) -> str:
    if outcome is None:
        return f"{tool} had started and nobody knows whether it happened."
    if outcome == "deferred":
        return f"{tool} had started and asked for a decision first; it was not carried out."
    value = (stored or {}).get("value")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} … (cut)"
    return f"{tool} had started and {'returned' if outcome == 'returned' else 'ended with'}: {shown}"
