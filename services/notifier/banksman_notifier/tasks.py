"""The notifier's one task: look at these notices. What to do with them is in their rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast
from uuid import UUID

from celery import Celery

from banksman import consumer
from banksman.errors import InvalidInput
from banksman.ids import NoticeId

_HEX = re.compile(r"[0-9a-f]{32}")
_MOST = 10_000


def register(celery: Celery, deliver: Callable[[Sequence[NoticeId]], object]) -> None:
    """Make `deliver` the body of the task of that name."""
    consumer.task(celery, "deliver", read, deliver)


def read(args: Sequence[object]) -> Sequence[NoticeId]:
    """The ids in a message's arguments: one list of 32 hex digits each, or `InvalidInput`."""
    if len(args) != 1 or not isinstance(args[0], list):
        raise InvalidInput("The arguments are not one list.")
    items = cast("list[object]", args[0])
    if len(items) > _MOST or not all(isinstance(item, str) and _HEX.fullmatch(item) for item in items):
        raise InvalidInput("The list does not hold ids of 32 hex digits.")
    return [NoticeId(UUID(hex=str(item))) for item in items]
