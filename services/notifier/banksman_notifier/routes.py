"""Routes: several ways to one person. A message counts as sent when one of them took it; the others are told of."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from banksman import ledger, logs
from banksman.ledger import preferences
from banksman_notifier.channels import Channel, ChannelError, Message, Opener, apprise
from banksman_notifier.channels.webhook import Outside

log = logs.get(__name__)


def channels(pool: ledger.Pool, mail: Opener, outside: Outside) -> Mapping[str, Opener]:
    """The ways out by the names that notices have for them (`Preferences.channel`)."""
    chat = partial(_to_ones_own, pool, outside)
    return {"email": mail, "apprise": chat, "email,apprise": partial(_both, {"email": mail, "apprise": chat})}


@contextmanager
def _to_ones_own(pool: ledger.Pool, outside: Outside) -> Generator[Channel]:
    yield _Own(pool, outside)


class _Own:
    """To the URLs that the person has now: they are read when they are used, and kept nowhere."""

    def __init__(self, pool: ledger.Pool, outside: Outside) -> None:
        self._pool = pool
        self._outside = outside

    def send(self, message: Message, /) -> None:
        with ledger.transaction(self._pool) as conn:
            urls = preferences.urls_of(conn, message.to)
        with apprise.opened(self._outside, urls) as way:
            way.send(message)


@contextmanager
def _both(openers: Mapping[str, Opener]) -> Generator[Channel]:
    with ExitStack() as stack:
        yield _Each({name: stack.enter_context(opener()) for name, opener in openers.items()})


class _Each:
    def __init__(self, ways: Mapping[str, Channel]) -> None:
        self._ways = ways

    def send(self, message: Message, /) -> None:
        failed: dict[str, ChannelError] = {}
        for name, way in self._ways.items():
            try:
                way.send(message)
            except ChannelError as error:
                failed[name] = error
        if len(failed) == len(self._ways):
            words = "; ".join(f"{name}: {error}" for name, error in failed.items())
            raise ChannelError(words, retryable=any(error.retryable for error in failed.values()))
        for name, error in failed.items():
            log.warning("A message went one way and not the other.", failed=name, error=str(error))
