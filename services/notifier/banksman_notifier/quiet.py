"""Quiet hours: from when until when somebody is left in peace, by the clock on their wall.

The wall's clock jumps twice a year. What counts is what it shows: a minute that it shows twice is quiet or loud both
times, and hours whose end it never shows are over at the jump.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from banksman.records import Quiet

_MINUTE = timedelta(minutes=1)
_LONGEST = timedelta(days=3)


def over_at(now: datetime, quiet: Quiet | None) -> datetime | None:
    """When the quiet hours end that it is now; None while it is not quiet."""
    if quiet is None:
        return None
    try:
        zone = ZoneInfo(quiet.zone)
    except (ZoneInfoNotFoundError, ValueError):
        # The machine lost its tables of zones: better heard at night than not at all.
        return None
    if not _is_quiet(now, quiet, zone):
        return None
    # Offsets are whole minutes, and so is each end: the first loud minute is found by looking at each.
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    for ahead in range(1, _LONGEST // _MINUTE):
        if not _is_quiet(minute + ahead * _MINUTE, quiet, zone):
            return minute + ahead * _MINUTE
    return now + _LONGEST


def _is_quiet(at: datetime, quiet: Quiet, zone: ZoneInfo) -> bool:
    wall: time = at.astimezone(zone).time()
    if quiet.begins < quiet.ends:
        return quiet.begins <= wall < quiet.ends
    return wall >= quiet.begins or wall < quiet.ends
