"""When did the email come? The payload's `received_at`, in whatever format a template wrote it."""

import re
from datetime import UTC, datetime

from dateutil import parser

from app.models.fit import in_utc

# Unix times up to the year 5138 in seconds; larger numbers are milliseconds.
LARGEST_SECONDS = 100_000_000_000
LONGEST_TIME = 64
# No email is older. The database takes the year 1 for "infinitely long ago", which no date is.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

# 23.11.2026, but neither 2026.11.23 nor the fraction of 14:05:09.5.
_DAY_FIRST = re.compile(r"(?<![\d.])\d{1,2}\.\s?\d{1,2}\.")


def parse_received_at(value: str | int | float | None, now: datetime) -> datetime:
    """Read a time; without a zone it is UTC, with dots (23.11.2026) the day comes first.

    Returns:
        The time in UTC, and `now` for one that is missing, unreadable, before 1970 or in the
        future: an email must never wait for a wrong clock.
    """
    try:
        parsed = _parse(value)
    except (ValueError, OverflowError, OSError):
        return now
    return parsed if parsed is not None and EARLIEST <= parsed <= now else now


def _parse(value: str | int | float | None) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if len(text) > LONGEST_TIME:
            return None
        try:
            return in_utc(datetime.fromisoformat(text))
        except ValueError:
            if not text.replace(".", "", 1).isdecimal():
                return in_utc(parser.parse(text, dayfirst=bool(_DAY_FIRST.search(text))))
            value = float(text)
    seconds = value / 1000 if abs(value) > LARGEST_SECONDS else value
    return datetime.fromtimestamp(seconds, UTC)
