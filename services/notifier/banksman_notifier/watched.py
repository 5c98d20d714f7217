"""Channels that are timed: every message that is handed over, or is not, is counted with how long that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Generic, TypeVar

from banksman import metrics
from banksman_notifier.channels import ChannelError, Opener, Way

Told = TypeVar("Told")


def each(openers: Mapping[str, Opener]) -> Mapping[str, Opener]:
    """The same channels, timed."""
    return {name: partial(opened, name, opener) for name, opener in openers.items()}


@contextmanager
def opened(name: str, opener: Callable[[], AbstractContextManager[Way[Told]]]) -> Generator[Way[Told]]:
    """The same channel, timed."""
    with opener() as way:
        yield _Timed(name, way)


class _Timed(Generic[Told]):
    def __init__(self, name: str, way: Way[Told]) -> None:
        self._name, self._way = name, way

    def send(self, message: Told, /) -> None:
        began, outcome = time.perf_counter(), "refused"
        try:
            self._way.send(message)
            outcome = "sent"
        except ChannelError as error:
            outcome = "retry" if error.retryable else "refused"
            raise
        finally:
            metrics.SEND.labels(self._name, outcome).observe(time.perf_counter() - began)
