"""Heads that receipts name: kept by everybody who votes, in a mail, a saved page or an answer of the API.

A receipt has no signature of the sealer: it says of one head its number, how many events it covers and their root. That
is enough to see that the log, as it is today, still has that head.
"""

from __future__ import annotations

import email.policy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

from banksman.errors import ConfigurationError

MOST_BYTES = 32 * 1024 * 1024

_TAGS = re.compile(r"<[^<>]*>")
_WORDS = re.compile(r"number\s+(\d{1,18}),\s+(\d{1,18})\s+events,\s+root\s+([0-9a-f]{64})")
_FIELDS = re.compile(
    r'"audit_head"\s*:\s*\{\s*"number"\s*:\s*(\d{1,18})\s*,\s*"size"\s*:\s*(\d{1,18})\s*,\s*"root"\s*:\s*"([0-9a-f]{64})"'
)


@dataclass(frozen=True, slots=True)
class Named:
    """A head as a receipt names it."""

    number: int
    size: int
    root: bytes


def read(path: Path) -> Sequence[Named]:
    """The heads that a saved mail, its text, a page or an answer of the API names; a `ConfigurationError` if none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from None
    texts = [raw.decode("utf-8", "replace"), *_parts(raw)]
    found = {
        Named(int(number), int(size), bytes.fromhex(root))
        for text in texts
        for pattern, seen in ((_FIELDS, text), (_WORDS, _TAGS.sub("", text)))
        for number, size, root in pattern.findall(seen)
    }
    if not found:
        raise ConfigurationError(
            f"{path} names no head of the audit log. A receipt has a line that begins “The audit log's newest head”."
        )
    return sorted(found, key=lambda named: named.number)


def _parts(raw: bytes) -> Sequence[str]:
    """What a mail says, however it was encoded for its way."""
    mail: EmailMessage = message_from_bytes(raw, policy=email.policy.default)
    if "content-type" not in mail:
        return []
    return [_text(part) for part in mail.walk() if part.get_content_maintype() == "text"]


def _text(part: EmailMessage) -> str:
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # a character set that nobody knows; what is looked for is ASCII
        raw = part.get_payload(decode=True)
        return raw.decode("ascii", "replace") if isinstance(raw, bytes) else ""
