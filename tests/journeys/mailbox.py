"""A Maildir as a mail program reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail."""

    message: EmailMessage

    @property
    def to(self) -> str:
        return str(self.message["To"])

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])

    @property
    def text(self) -> str:
        part = self.message.get_body(("plain",))
        assert part is not None
        return part.get_content().replace("\r\n", "\n")

    @property
    def url(self) -> str:
        """The one address in the text."""
        [found] = re.findall(r"^http\S+$", self.text, re.MULTILINE)
        return found

    @property
    def code(self) -> str:
        """The one code in the text, on a line of its own."""
        [found] = re.findall(r"^ {4}([0-9][0-9 -]*)$", self.text, re.MULTILINE)
        return found


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Everything that was delivered."""

    folder: Path

    def about(self, word: str, *, to: str) -> Sequence[Mail]:
        """The mails to somebody whose subject or text holds a word, oldest first."""
        paths = [path for name in ("new", "cur") for path in (self.folder / name).glob("*")]
        paths.sort(key=lambda path: path.stat().st_mtime_ns)
        mails = [Mail(message_from_bytes(path.read_bytes(), policy=default)) for path in paths]
        return [mail for mail in mails if mail.to == to and (word in mail.text or word in mail.subject)]
