"""Durations as people write them: `90s`, `15m`, `24h`, `7d`, `2w`."""

from __future__ import annotations

import re
from datetime import timedelta

from banksman.errors import InvalidInput

_FORM = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read(text: str, *, most: timedelta = timedelta(days=3660)) -> timedelta:
    """The duration behind a number and a unit, or `InvalidInput`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{text[:40]!r} is not a duration: write a number and s, m, h, d or w, such as 30d.")
    found = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if found > most:
        raise InvalidInput(f"{text} is too long: at most {most.days} days.")
    return found
