"""Stopping a run from outside: with everything that it waits for, and every run that it delegated to."""

from __future__ import annotations

from banksman.digest import Json
from banksman.ids import RunId
from banksman.ledger import Connection, audit, families, requests, runs
from banksman.records import Event
from banksman.states import RunStatus


def stop(conn: Connection, run_id: RunId, actor: str, *, because: str | None = None) -> RunStatus | None:
    """Queued, waiting or stuck → cancelled, with its open requests and its child runs; a running one is asked to stop,
    and its worker does it. None: it was over already. The caller holds the run's row.
    """
    status = runs.cancel(conn, run_id, because=because)
    if status is None:
        return None
    what = "run.cancelled" if status is RunStatus.CANCELLED else "run.cancel_asked"
    body: dict[str, Json] = {} if because is None else {"because": because}
    audit.append(conn, Event(actor, what, run_id, body=body))
    close(conn, run_id, actor)
    return status


def close(conn: Connection, run_id: RunId, actor: str) -> None:
    """Open → cancelled, every request of a run that is over; and its child runs are stopped, all held before."""
    closed = requests.cancel_open(conn, run_id)
    audit.append(conn, *(Event(actor, "request.cancelled", run_id, request_id) for request_id in closed))
    for child in families.living(conn, run_id):
        stop(conn, child, actor, because="The run that delegated to it was stopped.")
