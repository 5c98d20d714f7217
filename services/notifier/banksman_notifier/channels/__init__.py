"""Channels: the ways a message reaches a reviewer, one module each, all behind one protocol."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from banksman.errors import BanksmanError
from banksman.ids import NoticeId


@dataclass(frozen=True, slots=True)
class Message:
    """One composed message: equal notices make equal messages, whenever they are sent."""

    notice_id: NoticeId
    to: str
    subject: str
    text: str
    html: str
    written_at: datetime


class Channel(Protocol):
    """One open way out, used for a handful of messages by one thread."""

    def send(self, message: Message) -> None:
        """Hand the message over for good, or raise `ChannelError`."""
        ...


Opener = Callable[[], AbstractContextManager[Channel]]
"""Opens a channel for a handful; connecting waits for the first message."""


class ChannelError(BanksmanError):
    """A message was not handed over; `retryable` says whether the same message may succeed later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
