"""Channels: the ways a message reaches a reviewer, one module each, all behind one protocol."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from banksman.errors import BanksmanError
from banksman.ids import NoticeId

Told_contra = TypeVar("Told_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Message:
    """One composed message: equal notices make equal messages, whenever they are sent."""

    notice_id: NoticeId
    to: str
    subject: str
    text: str
    html: str
    brief: str
    """For services that make something of marks and names in a text: a few words of letters, and one address."""
    written_at: datetime
    thread: NoticeId | None = None
    """The first notice of the conversation that this message goes on with."""


class Way(Protocol[Told_contra]):
    """One open way out for messages of a kind, used for a handful of them by one thread."""

    def send(self, message: Told_contra, /) -> None:
        """Hand the message over for good, or raise `ChannelError`."""
        ...


Channel = Way[Message]
"""A way out for what people are told."""

Opener = Callable[[], AbstractContextManager[Channel]]
"""Opens a channel for a handful; connecting waits for the first message."""


class ChannelError(BanksmanError):
    """A message was not handed over; `retryable` says whether the same message may succeed later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
