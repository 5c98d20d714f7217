"""The console channel: messages as text on a stream, for somebody who watches the notifier's output."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from banksman_notifier.channels import Channel, ChannelError, Message


@dataclass(frozen=True, slots=True)
class Console:
    """Writes each message in one piece, so that threads do not mix their lines."""

    out: IO[str]

    def send(self, message: Message) -> None:
        """The message's text between two rules, addressed."""
        rule = "-" * 72
        text = f"{rule}\nTo: {message.to}\nSubject: {message.subject}\n\n{message.text.rstrip()}\n{rule}\n"
        try:
            self.out.write(text)
            self.out.flush()
        except (OSError, ValueError) as error:
            raise ChannelError(f"The console cannot be written to: {error}", retryable=True) from error


@contextmanager
def opened(out: IO[str] | None = None) -> Generator[Channel]:
    """Nothing to connect: the stream is the process's own output unless another is given."""
    yield Console(out or sys.stdout)
