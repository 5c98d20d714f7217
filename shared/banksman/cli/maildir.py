"""Reads what the mail catcher has kept: one file for each message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mail:
    """One caught message."""

    at: str
    to: str
    subject: str
    message: EmailMessage

    def text(self) -> str:
        """What a person would read: the head that matters, then the text part."""
        return f"To: {self.to}\nSubject: {self.subject}\nDate: {self.at}\n\n{self.body()}"

    def body(self) -> str:
        """The text part."""
        part = self.message.get_body(("plain",))
        return "" if part is None else part.get_content().replace("\r\n", "\n").rstrip() + "\n"

    def as_json(self) -> dict[str, str]:
        """For programs."""
        return {
            "at": self.at,
            "to": self.to,
            "subject": self.subject,
            "id": str(self.message["Message-ID"] or ""),
            "text": self.body(),
        }


def read(folder: Path, *, to: str = "") -> Sequence[Mail]:
    """The mails of a Maildir, newest first, those to one address if one is given."""
    files = [path for name in ("new", "cur") for path in (folder / name).glob("*") if path.is_file()]
    files.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    found = [_mail(path) for path in files]
    return [mail for mail in found if not to or mail.to.lower() == to.lower()]


def _mail(path: Path) -> Mail:
    message = message_from_bytes(path.read_bytes(), policy=default)
    to = str(message["Delivered-To"] or message["To"] or "")
    return Mail(str(message["Date"] or ""), to, str(message["Subject"] or ""), message)
