"""The two tasks that carry runs, each by one segment: the ids say where to look, the row says what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from celery import Celery

from banksman import consumer
from banksman.errors import InvalidInput
from banksman.ids import RunId
from banksman_worker import segment
from banksman_worker.parts import Worker

_HEX = re.compile(r"[0-9a-f]{32}")
Place = tuple[RunId, int]
"""A run and the segment it is to be carried on by."""


def register(celery: Celery, worker: Worker) -> None:
    """Make the tasks of this application carry runs with this worker's means."""
    consumer.task(celery, "start_run", read, partial(start_run, worker))
    consumer.task(celery, "resume_run", read, partial(resume_run, worker))


def start_run(worker: Worker, place: Place) -> None:
    """Carry a new run to its first pause or its end."""
    segment.advance(worker, *place)


def resume_run(worker: Worker, place: Place) -> None:
    """Rehydrate a run whose requests are settled, and carry it on to its next pause or its end."""
    segment.advance(worker, *place)


def read(arguments: Sequence[object]) -> Place:
    """The run and the segment in a message's arguments, or `InvalidInput`."""
    match arguments:
        case (str(run), int(number)) if _HEX.fullmatch(run) and 0 <= number < 2**31:
            return RunId(UUID(hex=run)), number
        case _:
            raise InvalidInput("The arguments are not a run of 32 hex digits and a segment.")
