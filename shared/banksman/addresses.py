"""E-mail addresses: the plain ones, which every mail server takes and no header misreads."""

from __future__ import annotations

import re

from banksman.errors import InvalidInput

_PLAIN = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


def is_plain(text: str) -> bool:
    """Whether this is an address that mail can be sent to."""
    return len(text) <= 254 and _PLAIN.fullmatch(text) is not None


def checked(text: str) -> str:
    """The address without surrounding blanks, or `InvalidInput`."""
    address = text.strip()
    if not is_plain(address):
        raise InvalidInput(f"{text[:100]!r} is not an e-mail address.")
    return address
