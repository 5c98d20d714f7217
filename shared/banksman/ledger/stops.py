"""Stopping runs from outside: with everything that they wait for, and every run that they delegated to."""

from __future__ import annotations

from collections.abc import Sequence

from banksman.digest import Json
from banksman.ids import RunId
from banksman.ledger import Connection, audit, families, requests, runs
from banksman.records import Event
from banksman.states import RunStatus

_TOLD = {RunStatus.CANCELLED: "run.cancelled", RunStatus.RUNNING: "run.cancel_asked"}


def stop(
    conn: Connection, run_ids: Sequence[RunId], actor: str, *, because: str | None = None, error: str | None = None
) -> None:
    """Queued, waiting or stuck → cancelled, with their open requests and their child runs; running ones are asked to
    stop, and their workers do it; those that are over stay so. The caller holds the rows of the runs.

    `because` stays in the audit log for good; what only the runs are to say, until they are erased, is their `error`.
    """
    stopped = runs.cancel(conn, run_ids, because=error or because)
    body: dict[str, Json] = {} if because is None else {"because": because}
    audit.append(conn, *(Event(actor, _TOLD[status], run_id, body=body) for run_id, status in stopped.items()))
    close(conn, list(stopped), actor)


def close(conn: Connection, run_ids: Sequence[RunId], actor: str) -> None:
    """Nobody waits for runs that are over, or are to be: their open requests go, and their child runs are stopped."""
    withdraw(conn, run_ids, actor)
    if children := families.living(conn, run_ids):
        stop(conn, children, actor, because="The run that delegated to it was stopped.")


def withdraw(conn: Connection, run_ids: Sequence[RunId], actor: str) -> None:
    """Open → cancelled, every request of these runs."""
    closed = requests.cancel_open(conn, run_ids)
    audit.append(conn, *(Event(actor, "request.cancelled", run_id, request_id) for run_id, request_id in closed))
