"""The notifier's one task: look at these notices. What to do with them is in their rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast
from uuid import UUID

from celery import Celery, Task
from celery.exceptions import Ignore

from banksman import logs
from banksman.errors import InvalidInput, Unavailable
from banksman.ids import NoticeId

_HEX = re.compile(r"[0-9a-f]{32}")
_MOST = 10_000

log = logs.get(__name__)


def register(celery: Celery, deliver: Callable[[Sequence[NoticeId]], object]) -> None:
    """Make `deliver` the body of the task of that name."""

    def task(self: Task[Any, Any], *args: object, **kwargs: object) -> None:
        request = self.request
        try:
            if kwargs or request.callbacks or request.errbacks or request.chain or request.chord:
                raise InvalidInput("A message carries ids and nothing else.")
            found = read(args)
        except InvalidInput as error:
            # `Ignore`, so that nothing the message brought along is called afterwards.
            log.warning("A message was dropped.", why=str(error))
            raise Ignore from None
        try:
            deliver(found)
        except Unavailable as error:
            log.warning("A message was left to the sweep.", error=str(error)[:200])

    celery.task(name="deliver", bind=True)(task)


def read(args: Sequence[object]) -> Sequence[NoticeId]:
    """The ids in a message's arguments: one list of 32 hex digits each, or `InvalidInput`."""
    if len(args) != 1 or not isinstance(args[0], list):
        raise InvalidInput("The arguments are not one list.")
    items = cast("list[object]", args[0])
    if len(items) > _MOST or not all(
        isinstance(item, str) and _HEX.fullmatch(item) for item in items
    ):
        raise InvalidInput("The list does not hold ids of 32 hex digits.")
    return [NoticeId(UUID(hex=str(item))) for item in items]
