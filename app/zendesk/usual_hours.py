"""How much email an hour of the week usually brings, and how long a silence is usual: pure
functions of counts by the hour.

Medians over weeks are taken and no means, so that one week with a holiday or a flood does not
count. A silence is measured by the emails that would usually have come in it, and not in hours: a
night weighs little, a Monday morning much.
"""

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Self, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import attrs

T = TypeVar("T")
Week: TypeAlias = "Sequence[tuple[int, float]]"
"""Of each hour, how many emails came, and how many usually do."""

HOUR = timedelta(hours=1)
HOURS_PER_WEEK = 168
MOST_WEEKS = 4
LEAST_WEEKS = 2
"""Before, one odd week could not be told from a usual one."""

# Where hours bring an email or none, the median of an hour is none: then several together are
# looked at, as few as explain most of a usual week.
WIDTHS = (1, 3, 6, 12, 24, HOURS_PER_WEEK)
EXPLAINED = 0.8
# A week with less than so much of a usual one was no week of work, or an outage: it is left out.
EMPTY_WEEK = 0.4
# If emails, or bursts of them, came by chance alone, there would be one alarm without a cause in so
# many times four weeks.
ALARM_BY_CHANCE = 100
# They do not come by chance alone: by how much a silence has to be longer than those there were.
LONGER_THAN_USUAL = 1.5
# Further ahead nobody wants to know when an alarm would come.
LOOKED_AHEAD = timedelta(days=28)


@attrs.frozen
class Usual:
    """What is usual at a desk."""

    rates: Sequence[float]
    """Emails in each hour of the week, from Monday 0:00 on, in the desk's zone."""
    zone: ZoneInfo
    weeks: int
    """How many were learned from."""
    limit: float
    """A silence in which so many emails would usually have come is none that is usual."""
    holidays: frozenset[date] = frozenset()
    """Days in that zone on which none is expected."""

    @classmethod
    def learn(
        cls,
        counts: Mapping[datetime, int],
        *,
        since: datetime,
        until: datetime,
        zone: ZoneInfo,
        holidays: Collection[date] = (),
    ) -> Self | None:
        """Learn from the weeks before a moment; None where there are too few, or nothing came.

        Args:
            counts: emails by the hour (UTC) in which they came; those without any may be missing.
            since: when counting began.
            until: the last email. What is silent since is not learned from, however long it lasts.
            zone: in which the desk's hours are.
            holidays: days in that zone on which no email is expected from now on.
        """
        end = _hour(until) + HOUR
        weeks = min(MOST_WEEKS, (end - _hour(since)) // (HOURS_PER_WEEK * HOUR))
        if weeks < LEAST_WEEKS:
            return None
        first = end - weeks * HOURS_PER_WEEK * HOUR
        hours = [first + number * HOUR for number in range(weeks * HOURS_PER_WEEK)]
        series = [counts.get(hour, 0) for hour in hours]
        slots = [_slot(hour, zone) for hour in hours]
        totals = [*map(sum, _weeks(series))]
        least = EMPTY_WEEK * statistics.median(totals)
        open_weeks = [number for number, total in enumerate(totals) if total > least]
        if not open_weeks:
            return None
        weekly = statistics.median(totals[number] for number in open_weeks)
        rates: list[float] = []
        for width in WIDTHS:
            rates = _medians(_smoothed(series, width), slots, open_weeks)
            if sum(rates) >= EXPLAINED * weekly:
                break
        all_weeks = _weeks([*zip(series, (rates[slot] for slot in slots), strict=True)])
        by_week = [all_weeks[number] for number in open_weeks]
        # The lower ones: a holiday is in the upper half.
        longest = statistics.median_low(map(_longest_silence, by_week))
        burst = statistics.median_low(map(_burst, by_week))
        by_chance = burst * math.log(ALARM_BY_CHANCE * max(sum(totals) / burst, 1.0))
        return cls(
            rates, zone, weeks, max(by_chance, LONGER_THAN_USUAL * longest), frozenset(holidays)
        )

    def expected(self, since: datetime, until: datetime) -> float:
        """How many emails usually come between two moments."""
        return sum(
            self._rate(begin) * ((end - begin) / HOUR) for begin, end in _pieces(since, until)
        )

    def alarm_at(self, since: datetime, floor: timedelta) -> datetime | None:
        """When a silence that goes on is longer than usual; None where that is weeks ahead.

        Args:
            floor: what no alarm comes before.
        """
        left = self.limit
        for begin, end in _pieces(since, since + LOOKED_AHEAD):
            rate = self._rate(begin)
            if rate * ((end - begin) / HOUR) >= left:
                return max(begin + left / rate * HOUR, since + floor)
            left -= rate * ((end - begin) / HOUR)
        return None

    def _rate(self, moment: datetime) -> float:
        if moment.astimezone(self.zone).date() in self.holidays:
            return 0.0
        return self.rates[_slot(moment, self.zone)]


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _slot(hour: datetime, zone: ZoneInfo) -> int:
    """The hour of the week in which an hour (UTC) begins there."""
    local = hour.astimezone(zone)
    return local.weekday() * 24 + local.hour


def _pieces(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """A span, cut at full hours (UTC)."""
    begin = since.astimezone(UTC)
    while begin < until:
        end = min(_hour(begin) + HOUR, until)
        yield begin, end
        begin = end


def _weeks(values: Sequence[T]) -> list[Sequence[T]]:
    return [
        values[begin : begin + HOURS_PER_WEEK] for begin in range(0, len(values), HOURS_PER_WEEK)
    ]


def _smoothed(series: Sequence[int], width: int) -> list[float]:
    """The mean of each hour and those around it."""
    sums = [0]
    for count in series:
        sums.append(sums[-1] + count)
    around = [
        (max(0, number - width // 2), min(len(series), number - width // 2 + width))
        for number in range(len(series))
    ]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in around]


def _medians(values: Sequence[float], slots: Sequence[int], weeks: Sequence[int]) -> list[float]:
    """The median of each hour of the week, over some of the weeks. Where the clocks change, an hour
    comes twice or not at all; both count for themselves."""
    samples: list[list[float]] = [[] for _ in range(HOURS_PER_WEEK)]
    for number, (value, slot) in enumerate(zip(values, slots, strict=True)):
        if number // HOURS_PER_WEEK in weeks:
            samples[slot].append(value)
    return [statistics.median(found) if found else 0.0 for found in samples]


def _longest_silence(week: Week) -> float:
    """By the emails that usually come in it: the longest row of hours without an email."""
    longest = silence = 0.0
    for count, rate in week:
        silence = 0.0 if count else silence + rate
        longest = max(longest, silence)
    return longest


def _burst(week: Week) -> float:
    """How many emails come together, judged by how far the hours are from what they usually are: of
    single emails, the squares of that are as large as the hours themselves."""
    squares = sum((count - rate) ** 2 for count, rate in week)
    return max(1.0, squares / max(sum(rate for _, rate in week), 1.0))
