"""What the worker does with messages: whoever can write to the broker can at most ask it to look at a row."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Ignore

from banksman.errors import InvalidInput
from banksman.states import RunStatus
from banksman_worker import tasks
from tests.worker.conftest import SiteMaker
from tests.worker.test_segment import a_site

RUN = uuid4().hex


@pytest.mark.parametrize(
    "message",
    [
        [],
        [RUN],
        [RUN, "0"],
        [RUN, -1],
        [RUN, 2**31],
        [RUN, 0, 0],
        [RUN.upper(), 0],
        [RUN[:-1], 0],
        [f"{RUN[:-1]}\n", 0],
        [{"id": RUN}, 0],
        [RUN, None],
    ],
)
def test_a_message_of_another_form_is_refused(message: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        tasks.read(message)


@pytest.fixture
def celery() -> Celery:
    return Celery("test", set_as_current=False)


def test_a_message_carries_its_run_on(site: SiteMaker, celery: Celery) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id = here.submit("payer")
    tasks.register(celery, here.worker)

    celery.tasks["start_run"](run_id.hex, 0)

    assert here.run(run_id).status is RunStatus.WAITING


@pytest.mark.parametrize("brought", ["callbacks", "errbacks", "chain", "chord"])
def test_a_message_that_brings_something_to_call_afterwards_is_dropped(
    brought: str, site: SiteMaker, celery: Celery
) -> None:
    here = a_site(site, ("pay", {"amount": 5}))
    run_id = here.submit("payer")
    tasks.register(celery, here.worker)
    task = celery.tasks["start_run"]
    task.push_request(args=[run_id.hex, 0], **{brought: [{"task": "start_run", "args": []}]})

    with pytest.raises(Ignore):
        task.run(run_id.hex, 0)

    assert here.run(run_id).status is RunStatus.QUEUED
