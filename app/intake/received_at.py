"""When did the email come? The payload's `received_at`, in whatever format a template wrote it.

The right time or the time of receipt: what is incomplete, implausible or in a zone that is not
certain is not guessed at, and the wall clock of a named zone is never taken for UTC.
"""

import re
from calendar import day_abbr, day_name, month_abbr, month_name
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from dateutil import parser

from app.intake.zones import zone_of_name
from app.models.fit import in_utc

LONGEST_TIME = 100
# Zendesk was founded in 2007. An older time is a clock that was never set, or no time at all.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LARGEST_OFFSET = timedelta(hours=14)

# Seconds, milliseconds, microseconds, nanoseconds since 1970. No plausible time fits two of them.
_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)
_COMPACT = {14: "%Y%m%d%H%M%S", 12: "%Y%m%d%H%M"}

# 23.11.2026, but neither 2026.11.23 nor the fraction of 14:05:09.5.
_DAY_FIRST = re.compile(r"(?<![\d.])\d{1,2}\.\s?\d{1,2}\.")
_YEAR_FIRST = re.compile(r"\s*\d{4}\D")
_COMMENT = re.compile(r"\(([^()]*)\)|\[([^\[\]]*)\]")
_REGION = re.compile(r"\b[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+")
_OFFSET = re.compile(
    r"(?P<utc>(?<![A-Za-z])(?:UTC|GMT|UT|Z)\s?)?(?P<sign>[+\-\u2212])"
    r"(?P<hours>\d{1,2})(?::?(?P<minutes>\d{2}))?(?![\d:./-])"
)
# What an offset stands behind, unless it names UTC: `-2026` in 24-11-2026 is none.
_BEFORE_OFFSET = re.compile(
    r"(?:^|\d:\d\d(?::\d\d(?:[.,]\d+)?)?|T\d{4,6}"
    r"|(?<![A-Za-z])[AaPp][Mm]|(?<![A-Za-z])[A-Z]{3,5})\s*\Z"
)
_HALF_OF_DAY = re.compile(r"\b([AaPp])\.\s?[Mm]\.")
_WORD = re.compile(r"[^\W\d_]+")
_ORDINARY_WORDS = {
    *("am", "pm", "at", "on", "of", "the", "t", "st", "nd", "rd", "th", "sept", "tues", "thurs"),
    *(name.lower() for names in (month_name, month_abbr, day_name, day_abbr) for name in names),
}
# What is missing of a date would be taken from these; as they share nothing, it shows.
_ONE_DAY, _ANOTHER_DAY = datetime(2000, 1, 1), datetime(2004, 2, 2)  # noqa: DTZ001


def parse_received_at(
    value: str | int | float | None, now: datetime, *, day_first: bool = False
) -> datetime:
    """Read a time; without a zone it is UTC.

    Args:
        day_first: of two numbers as in 03/11/2026 the first is the day. With dots (03.11.2026) it
            always is, in front of a year never.

    Returns:
        The time in UTC, and `now` for one that is missing, not certain, before 2000 or in the
        future: an email must never wait for a wrong clock, nor pass all others by one.
    """
    try:
        parsed = _parse(value, now, day_first)
    except (ValueError, OverflowError, OSError):
        return now
    return parsed if parsed is not None and EARLIEST <= parsed <= now else now


def _parse(value: str | int | float | None, now: datetime, day_first: bool) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return _from_number(value, now)
    text = value.strip()
    if len(text) > LONGEST_TIME:
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError:
        pass
    if not _NUMBER.fullmatch(text):
        return _from_words(text, day_first)
    parsed = _from_number(float(text), now)
    if parsed is None and len(text) in _COMPACT:
        parsed = datetime.strptime(text, _COMPACT[len(text)]).replace(tzinfo=UTC)
    return parsed


def _from_number(number: float, now: datetime) -> datetime | None:
    for unit in _UNITS:
        if EARLIEST.timestamp() <= number / unit <= now.timestamp():
            return datetime.fromtimestamp(number / unit, UTC)
    return None


def _from_words(text: str, day_first: bool) -> datetime | None:
    text, zone = _take_zone(_HALF_OF_DAY.sub(r"\1m", text))
    if any(word.lower() not in _ORDINARY_WORDS for word in _WORD.findall(text)):
        return None
    is_day_first = _DAY_FIRST.search(text) or (day_first and not _YEAR_FIRST.match(text))
    one, another = (
        parser.parse(text, dayfirst=bool(is_day_first), default=default)
        for default in (_ONE_DAY, _ANOTHER_DAY)
    )
    if one != another or one.tzinfo is not None:
        return None
    return in_utc(one.replace(tzinfo=zone))


def _take_zone(text: str) -> tuple[str, tzinfo | None]:
    """Part a time from its zone.

    Raises:
        ValueError: it names a zone that is not certain.
    """
    comments = [first or second for first, second in _COMMENT.findall(text)]
    text = _COMMENT.sub(" ", text)
    zones: list[tzinfo] = []
    if region := _REGION.search(text):
        zones.append(_named(region.group()))
        text = _without(text, region)
    for offset in _OFFSET.finditer(text):
        if offset["utc"] or _BEFORE_OFFSET.search(text[: offset.start()]):
            # It says more than a name beside it, as in `+0100 CET`.
            zones.insert(0, _offset(offset))
            text = _without(text, offset)
            break
    names = [
        word
        for word in _WORD.finditer(text)
        if word.group().lower() not in _ORDINARY_WORDS and zone_of_name(word.group())
    ]
    for name in reversed(names):
        zones.append(_named(name.group()))
        text = _without(text, name)
    if len({name.group() for name in names}) == len(zones) > 1:
        raise ValueError("two zones")
    if not zones and comments:
        # RFC 5322: a comment says the zone once more, in words. Here it says it alone.
        rest, zone = _take_zone(comments[0])
        if zone is None or rest.strip():
            raise ValueError("a comment that names no zone")
        zones.append(zone)
    return text, zones[0] if zones else None


def _named(name: str) -> tzinfo:
    zone = zone_of_name(name)
    if zone is None:
        raise ValueError("a zone that is not certain")
    return zone


def _offset(match: re.Match[str]) -> tzinfo:
    minutes = int(match["minutes"] or 0)
    offset = timedelta(hours=int(match["hours"]), minutes=minutes)
    if minutes > 59 or offset > LARGEST_OFFSET:
        raise ValueError("no offset of any zone")
    return timezone(offset if match["sign"] == "+" else -offset)


def _without(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} {text[match.end() :]}"
