"""Durations as people write them: `90s`, `15m`, `24h`, `7d`, `2w`, `1d12h`."""

from __future__ import annotations

import re
from datetime import timedelta

from banksman.errors import InvalidInput

_FORM = re.compile(r"(?:[0-9]{1,6}[smhdw])+")
_PIECE = re.compile(r"([0-9]+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def read(text: str, *, most: timedelta = timedelta(days=3660)) -> timedelta:
    """The duration behind numbers with their units, or `InvalidInput`."""
    if not _FORM.fullmatch(text):
        raise InvalidInput(
            f"{text[:40]!r} is not a duration: write numbers with s, m, h, d or w, such as 30d or 1d12h."
        )
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PIECE.findall(text))
    if seconds < 1:
        raise InvalidInput(f"{text[:40]} is too short: at least a second.")
    if seconds > most.total_seconds():
        raise InvalidInput(f"{text[:40]} is too long: at most {most.days} days.")
    return timedelta(seconds=seconds)
