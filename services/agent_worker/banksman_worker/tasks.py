"""The two tasks that carry runs, each by one segment: parse the ids, and let the row say what to do.

A message of any other form is dropped with a line in the log: whoever can write to the broker can at most ask us to
look at a row.
"""

from __future__ import annotations

from uuid import UUID

from celery import Celery

from banksman import logs
from banksman.errors import Unavailable
from banksman.ids import RunId
from banksman_worker import segment
from banksman_worker.segment import Worker

log = logs.get(__name__)


def register(celery: Celery, worker: Worker) -> None:
    """Make `start_run` and `resume_run` of this application carry runs with this worker's means."""

    @celery.task(name="start_run")
    def start_run(*message: object) -> None:
        _carry(worker, message)

    @celery.task(name="resume_run")
    def resume_run(*message: object) -> None:
        _carry(worker, message)

    del start_run, resume_run


def _carry(worker: Worker, message: tuple[object, ...]) -> None:
    match message:
        case (str(run), int(number)) if len(run) == 32 and 0 <= number < 2**31:
            try:
                run_id = RunId(UUID(hex=run))
            except ValueError:
                log.warning("A message that names no run was dropped.")
                return
        case _:
            log.warning("A message that is not a run and a segment was dropped.")
            return
    try:
        segment.advance(worker, run_id, number)
    except Unavailable as error:
        log.warning("PostgreSQL is away; the dispatcher sends this again.", error=str(error)[:200])
