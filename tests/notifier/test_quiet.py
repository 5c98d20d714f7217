"""Quiet hours: over at the first minute that the wall's clock shows as loud, also where the clock jumps."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banksman.records import Quiet
from banksman_notifier.quiet import over_at

MINUTE = timedelta(minutes=1)
# Jumps at midnight, of half an hour, of a whole day, and none at all.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "UTC",
]


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "begins", "ends", "expected"),
    [
        # An ordinary night: Berlin is two hours ahead in summer, one in winter.
        ("2026-07-01T22:30+02:00", time(22), time(7), "2026-07-02T07:00+02:00"),
        ("2026-01-10T03:00+01:00", time(22), time(7), "2026-01-10T07:00+01:00"),
        # A noon's rest does not cross midnight.
        ("2026-07-01T12:30+02:00", time(12), time(13), "2026-07-01T13:00+02:00"),
        # The night in which the clock is put forward is an hour shorter.
        ("2026-03-28T23:00+01:00", time(22), time(7), "2026-03-29T07:00+02:00"),
        # The night in which it is put back is an hour longer.
        ("2026-10-24T23:00+02:00", time(22), time(7), "2026-10-25T07:00+01:00"),
        # 02:30 is never shown on that morning: the hours are over at the jump.
        ("2026-03-29T00:30+01:00", time(22), time(2, 30), "2026-03-29T03:00+02:00"),
        # 02:30 is shown twice: over at the first, and quiet again when the clock shows 02:00 again.
        ("2026-10-25T01:00+02:00", time(22), time(2, 30), "2026-10-25T02:30+02:00"),
        ("2026-10-25T02:10+01:00", time(22), time(2, 30), "2026-10-25T02:30+01:00"),
    ],
)
def test_quiet_hours_end_when_the_clock_on_the_wall_says_so(now: str, begins: time, ends: time, expected: str) -> None:
    assert over_at(at(now), Quiet(begins, ends, "Europe/Berlin")) == at(expected)


@given(
    zone=st.sampled_from(ZONES),
    # Around jumps of 2026 in these zones, and anywhere.
    now=st.one_of(
        st.sampled_from(
            ["2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-09-05", "2026-04-23"]
        )
        .map(at)
        .flatmap(lambda day: st.integers(0, 3 * 1440).map(lambda minutes: day + minutes * MINUTE)),
        st.integers(0, 6 * 365 * 1440).map(lambda minutes: at("2024-01-01") + minutes * MINUTE),
    ),
    begins=st.times(),
    ends=st.times(),
)
def test_all_of_the_time_until_the_end_is_quiet_and_the_end_is_not(
    zone: str, now: datetime, begins: time, ends: time
) -> None:
    begins, ends = begins.replace(second=0, microsecond=0), ends.replace(second=0, microsecond=0)
    if begins == ends:
        return
    chosen = Quiet(begins, ends, zone)

    end = over_at(now, chosen)

    def shown(moment: datetime) -> time:
        return moment.astimezone(ZoneInfo(zone)).time()

    def quiet(moment: datetime) -> bool:
        wall = shown(moment)
        return begins <= wall < ends if begins < ends else not ends <= wall < begins

    if end is None:
        assert not quiet(now)
    else:
        assert now < end <= now + timedelta(hours=26)
        assert not quiet(end)
        assert all(quiet(now + step * MINUTE) for step in range((end - now) // MINUTE))
        assert quiet(end - timedelta(microseconds=1))


def test_a_zone_that_this_machine_does_not_know_keeps_nobody_uninformed() -> None:
    assert over_at(at("2026-07-01T00:00+00:00"), Quiet(time(0), time(23, 59), "Mars/Olympus")) is None
