"""When the email came: every usual spelling is read, and no odd one makes an email wait."""

import warnings
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.received_at import EARLIEST, parse_received_at

NOW = datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC)
CAME = datetime(2026, 11, 3, 13, 4, 5, tzinfo=UTC)
DAY = datetime(2026, 11, 3, tzinfo=UTC)

past_times = st.integers(int(EARLIEST.timestamp()), int(NOW.timestamp()) - 24 * 3_600).flatmap(
    lambda seconds: st.integers(0, 999_999).map(
        lambda fraction: datetime.fromtimestamp(seconds, UTC).replace(microsecond=fraction)
    )
)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes))
time_like = st.text("0123456789-+:./TZ ,eEJanuaryMonAMPMUTCGMT", max_size=70)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-03T13:04:05Z",
        "2026-11-03T13:04:05",
        "2026-11-03T13:04:05+00:00",
        "2026-11-03T14:04:05+01:00",
        "2026-11-03T03:34:05-0930",
        "2026-11-03 13:04:05",
        "2026-11-03 13:04:05 UTC",
        "2026-11-03 14:04:05 +0100",
        "  2026-11-03T13:04:05Z\n",
        "20261103T130405Z",
        "Tue, 03 Nov 2026 13:04:05 +0000",
        "Tue, 3 Nov 2026 14:04:05 +0100",
        "Tue, 03 Nov 2026 13:04:05 GMT",
        "Tue Nov  3 13:04:05 2026",
        "November 3, 2026 at 13:04:05",
        "Nov 3, 2026, 1:04:05 PM",
        "3 Nov 2026 13:04:05",
        "11/03/2026 13:04:05",
        "03.11.2026 13:04:05",
        "3.11.2026 13:04:05",
        "3. 11. 2026 13:04:05",
        "2026.11.03 13:04:05",
        "2026/11/03 13:04:05",
        "1793711045",
        "1793711045.0",
        "1793711045000",
    ],
)
def test_a_time_is_read_however_a_template_spells_it(text: str) -> None:
    assert parse_received_at(text, NOW) == CAME


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-03T13:04:05.5Z",
        "2026-11-03T13:04:05.500",
        "2026-11-03T13:04:05.500000000Z",
        "2026-11-03 13:04:05.500 UTC",
        "2026-11-03 14:04:05.5 +0100",
        "11/03/2026 13:04:05.5",
        "03.11.2026 13:04:05.5",
        "1793711045.5",
        "1793711045500",
    ],
)
def test_the_fraction_of_a_second_changes_nothing_but_the_fraction(text: str) -> None:
    assert parse_received_at(text, NOW) == CAME.replace(microsecond=500_000)


@pytest.mark.parametrize("text", ["2026-11-03", "03.11.2026", "Nov 3, 2026", "2026.11.03"])
def test_a_day_without_a_time_is_its_beginning(text: str) -> None:
    assert parse_received_at(text, NOW) == DAY


@pytest.mark.parametrize(
    "number",
    [
        *(1_793_711_045, 1_793_711_045.0, 1_793_711_045_000, 1_793_711_045_000.0),
        *(1_793_711_045_000_000, 1_793_711_045_000_000_000),
    ],
)
def test_a_number_is_unix_time_in_a_unit_that_its_size_tells(number: float) -> None:
    assert parse_received_at(number, NOW) == CAME
    assert parse_received_at(str(number), NOW) == CAME


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 03 Nov 2026 05:04:05 PST",
        "Nov 3, 2026 09:04:05 AM EDT",
        "03.11.2026 16:04:05 MSK",
        "3 Nov 2026 15:04:05 CEST",
        "3 Nov 2026 14:04:05 (CET)",
        "2026-11-03T14:04:05CET",
        "2026-11-03 18:34:05 UTC+05:30",
        "Tue, 03 Nov 2026 15:04:05 GMT+2",
        "2026-11-03 10:04:05 UTC-3",
        "3 Nov 2026 18:34:05 GMT+0530",
        "2026-11-03 15:04:05 UTC +2",
        "2026-11-03 14:04:05 (UTC+1)",
        "Tue, 3 Nov 2026 14:04:05 +0100 (CET)",
        "Tue Nov  3 08:04:05 EST 2026",
        "Tue Nov 03 2026 14:04:05 GMT+0100 (Central European Standard Time)",
        "2026-11-03 14:04:05 +0100 CET",
        "2026-11-03 14:04:05 CET +0100",
        "2026-11-03 13:04:05 Z",
        "2026-11-03T14:04:05+01:00[Europe/Berlin]",
        "2026-11-03T14:04:05[Europe/Berlin]",
        "2026-11-03 14:04:05 Europe/Berlin",
        "2026-11-03 08:04:05 Etc/GMT+5",
        "Nov 3, 2026, 5:04:05 AM GMT-8",
        "November 3rd, 2026 at 5:04:05 a.m. PT",
        "2026-11-03 10:04:05\u221203:00",
        "11/03/2026 08:04:05 -0500",
        "Tue, 3 Nov 2026 13:04:05 -0000",
        "3 Nov 26 13:04:05 UT",
        "20261103130405",
        "Tue Nov 3 15:04:05 GMT+02:00 2026",
    ],
)
def test_the_zone_is_heeded_however_it_is_named(text: str) -> None:
    assert parse_received_at(text, NOW) == CAME


@pytest.mark.parametrize("text", ["12:04:05 PM", "12:04:05 p.m."])
def test_a_clock_of_twelve_hours_is_read(text: str) -> None:
    assert parse_received_at(f"Nov 3, 2026 {text}", NOW) == CAME.replace(hour=12)
    morning = text.lower().replace("p", "a", 1)
    assert parse_received_at(f"Nov 3, 2026 {morning}", NOW) == CAME.replace(hour=0)


def test_the_order_of_day_and_month_is_a_setting_where_nothing_else_tells_it() -> None:
    march, november = DAY.replace(month=3, day=11), DAY
    assert parse_received_at("03/11/2026", NOW) == march
    assert parse_received_at("03/11/2026", NOW, day_first=True) == november
    for day_first in (True, False):
        assert parse_received_at("03.11.2026", NOW, day_first=day_first) == november
        assert parse_received_at("2026/11/03", NOW, day_first=day_first) == november
        assert parse_received_at("2026-11-03 00:00 UTC", NOW, day_first=day_first) == november
        assert parse_received_at("18/11/2026", NOW, day_first=day_first) == DAY.replace(day=18)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "yesterday",
        "{{ticket.created_at}}",
        "32.13.2026",
        "2026-02-30T10:00:00Z",
        "2026-11-03T13:04:05Z" * 10,
        "0000-00-00 00:00:00",
        *("7", "0", "20", "1.5", "1e9", "2026", "Tuesday", "Nov 2026", "10:00", "10:00 PST"),
        *("2026-11-03 13:04 IST", "2026-11-03 13:04 BST", "2026-11-03 13:04 XYZ"),
        *("2026-11-03 13:04 A", "2026-11-03 13:04 +25:00", "2026-11-03 13:04 UTC+2:75"),
        *("2026-11-03 13:04 PST CET", "2026-11-03 13:04 (local time)", "3 novembre 2026 13:04"),
        *("2026-11-03 13:04 Mars/Olympus", "2026-11-03 13:04 Central Time (US & Canada)"),
        "²",
        "\x00",
        float("nan"),
        float("inf"),
        10**400,
        "9" * 400,
    ],
)
def test_what_is_missing_or_unreadable_is_now(value: Any) -> None:
    assert parse_received_at(value, NOW) == NOW


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-23T14:05:10Z",
        "2026-11-24",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-23:59",
        1_795_442_710,
        10**30,
    ],
)
def test_the_future_is_now(value: Any) -> None:
    assert parse_received_at(value, NOW) == NOW


@pytest.mark.parametrize(
    "value",
    [
        *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00", "1999-12-31T23:59:59Z", 0, 7, -1),
        *(-(10**30), 946_684_799, "1999-12-31"),
    ],
)
def test_what_is_older_than_email_is_now(value: Any) -> None:
    assert parse_received_at(value, NOW) == NOW


def test_the_limits_themselves_are_times() -> None:
    assert parse_received_at(EARLIEST.isoformat(), NOW) == EARLIEST
    assert parse_received_at(946_684_800, NOW) == EARLIEST
    assert parse_received_at(NOW.isoformat(), NOW) == NOW


@given(past_times, offsets)
def test_any_iso_8601_time_is_read_exactly(time: datetime, offset: timedelta) -> None:
    local = time.astimezone(UTC).replace(tzinfo=None) + offset
    sign = "-" if offset < timedelta(0) else "+"
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    text = f"{local.isoformat()}{sign}{hours:02}:{minutes:02}"
    assert parse_received_at(text, NOW) == time


@given(past_times)
def test_any_email_header_date_is_read_to_the_second(time: datetime) -> None:
    assert parse_received_at(format_datetime(time), NOW) == time.replace(microsecond=0)


@given(past_times)
def test_any_german_date_is_read_with_the_day_first(time: datetime) -> None:
    assert parse_received_at(f"{time:%d.%m.%Y %H:%M:%S.%f}", NOW) == time


@given(st.none() | st.integers() | st.floats() | st.text(max_size=70) | time_like)
def test_whatever_comes_is_a_time_in_utc_that_is_not_in_the_future(value: Any) -> None:
    with warnings.catch_warnings():
        # dateutil warns of abbreviations of zones that it does not know.
        warnings.simplefilter("ignore")
        time = parse_received_at(value, NOW)
    assert EARLIEST <= time <= NOW
    assert time.utcoffset() == timedelta(0)
