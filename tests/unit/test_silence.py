"""Silence: what is usual, what is not, and why nothing comes."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from app.zendesk.causes import Call, Cause, Facts, judge
from app.zendesk.email_hours import Counts
from app.zendesk.usual_hours import HOUR, Usual
from app.zendesk.verdict import Verdict, assess

ZONE = ZoneInfo("Europe/Berlin")
# In the eight weeks from here on the clocks change, on 25 October.
START = datetime(2026, 9, 28, tzinfo=ZONE).astimezone(UTC)
WARM = START + timedelta(weeks=4)
END = START + timedelta(weeks=8)
HOLIDAYS = (date(2026, 10, 6), date(2026, 11, 11))
FLOOR = timedelta(minutes=30)
STEP = timedelta(minutes=5)
A_WEEK = timedelta(weeks=1)


@attrs.frozen
class Desk:
    """How many emails a desk gets an hour: in working hours, on weekends, at night."""

    working: float
    weekend: float
    night: float
    found_within: timedelta
    """How long after it began an outage in working hours is known."""
    burst: int = 1
    """Emails that come together."""

    def rate(self, hour: datetime) -> float:
        local = hour.astimezone(ZONE)
        if local.date() in HOLIDAYS:
            return self.night
        if local.weekday() >= 5:
            return self.weekend if 8 <= local.hour < 20 else self.night
        if 8 <= local.hour < 18:
            return self.working
        return self.working / 5 if 6 <= local.hour < 22 else self.night

    def emails(self, chance: random.Random) -> Iterator[datetime]:
        for number in range(int((END - START) / HOUR)):
            hour = START + number * HOUR
            for _ in range(_poisson(chance, self.rate(hour) / self.burst)):
                at = hour + chance.random() * HOUR
                yield from (at + chance.random() * timedelta(minutes=1) for _ in range(self.burst))


DESKS = {
    "busy": Desk(60, 10, 1, timedelta(minutes=35)),
    "usual": Desk(10, 1, 0.1, timedelta(hours=3)),
    "without nights": Desk(10, 0, 0, timedelta(hours=3)),
    "bursts": Desk(30, 3, 0.3, timedelta(hours=3), burst=5),
    "small": Desk(2, 0.2, 0.02, timedelta(hours=10)),
}


def _poisson(chance: random.Random, mean: float) -> int:
    product, count, bound = chance.random(), 0, math.exp(-mean)
    while product > bound:
        product *= chance.random()
        count += 1
    return count


def counted(emails: Sequence[datetime]) -> Counts:
    hours = Counter(at.replace(minute=0, second=0, microsecond=0) for at in emails)
    return Counts({START: 0, **hours}, emails[-1])


def verdict(emails: Sequence[datetime], now: datetime, facts: Facts) -> Verdict:
    until_now = [at for at in emails if at <= now]
    return assess(counted(until_now), facts, now=now, floor=FLOOR, zone=ZONE)


def weeks_of(emails: Sequence[datetime]) -> Iterator[tuple[datetime, datetime | None]]:
    """Of the four weeks that are watched, each silence with when it would be an alarm. What is
    usual is learned anew each day."""
    day, usual = START, None
    for last, following in zip(emails, [*emails[1:], END], strict=True):
        if last < WARM or following - last < FLOOR:
            continue
        if last - day > timedelta(days=1):
            day, until = last, [at for at in emails if at <= last]
            usual = Usual.learn(counted(until).hours, since=START, until=last, zone=ZONE)
        assert usual is not None
        alarm_at = usual.alarm_at(last, FLOOR)
        yield last, alarm_at if alarm_at is not None and alarm_at < following else None


@pytest.mark.parametrize("name", DESKS)
def test_four_weeks_with_nights_weekends_and_a_change_of_clocks_bring_no_alarm(name: str) -> None:
    desk = DESKS[name]
    emails = sorted(desk.emails(random.Random(15)))
    alarms = [(last, at) for last, at in weeks_of(emails) if at is not None]
    # On a holiday nothing comes, which only Zendesk can tell from an outage.
    on_holiday = {at.astimezone(ZONE).date() for _, at in alarms}
    assert on_holiday <= {HOLIDAYS[1]}
    for last, alarm_at in alarms:
        before, at = [at for at in emails if at <= last], alarm_at + 2 * HOUR
        quiet = verdict(before, at, Facts(tickets=0))
        assert quiet.trouble is None
        assert "a quiet day" in quiet.summary
        assert verdict(before, at, Facts()).trouble is not None


@pytest.mark.parametrize("name", DESKS)
@pytest.mark.parametrize("week", [4, 6])
def test_an_outage_on_a_working_day_is_found_within_the_stated_time(name: str, week: int) -> None:
    desk = DESKS[name]
    began = START + week * A_WEEK + timedelta(days=1, hours=10)
    emails = sorted(at for at in desk.emails(random.Random(week)) if at < began)
    facts = Facts(tickets=3)
    found = began
    while (found_verdict := verdict(emails, found, facts)).trouble is None:
        found += STEP
        assert found - began <= desk.found_within
    assert found_verdict.cause is Cause.NOT_CALLED
    assert found_verdict.trouble is not None
    assert "no email came for" in found_verdict.trouble.text
    # However long it lasts, what it takes from the weeks is not learned.
    assert verdict(emails, began + 5 * A_WEEK, facts).trouble is not None


@pytest.mark.parametrize("odd_week", ["closed", "flooded"])
def test_one_odd_week_of_those_learned_from_changes_next_to_nothing(odd_week: str) -> None:
    emails = sorted(DESKS["usual"].emails(random.Random(1)))
    begin = START + 5 * A_WEEK
    if odd_week == "closed":
        odd = [at for at in emails if not begin <= at < begin + A_WEEK]
    else:
        odd = sorted([*emails, *(begin + 30 * HOUR + n * timedelta(seconds=5) for n in range(700))])
    usual, other = (
        Usual.learn(counted(these).hours, since=START, until=emails[-1], zone=ZONE)
        for these in (emails, odd)
    )
    assert usual is not None
    assert other is not None
    assert sum(other.rates) == pytest.approx(sum(usual.rates), rel=0.15)
    assert other.limit == pytest.approx(usual.limit, rel=0.2)


def test_the_same_hour_of_the_desk_is_meant_before_and_after_the_clocks_change() -> None:
    change = datetime(2026, 10, 25, tzinfo=UTC)
    emails = [
        hour + timedelta(minutes=minute)
        for number in range(8 * 168)
        if (hour := START + number * HOUR).astimezone(ZONE).hour == 9
        for minute in range(0, 60, 3)
    ]
    usual = Usual.learn(
        counted(emails).hours, since=START, until=change + timedelta(days=9), zone=ZONE
    )
    assert usual is not None
    busy = {number % 24 for number, rate in enumerate(usual.rates) if rate > 10}
    assert busy == {9}


@pytest.mark.parametrize("weeks", [0.5, 1.9])
def test_before_two_weeks_nothing_is_usual(weeks: float) -> None:
    emails = sorted(DESKS["busy"].emails(random.Random(1)))
    since = START + weeks * A_WEEK
    early = [at for at in emails if at <= since]
    found = verdict(early, early[-1] + 3 * timedelta(days=1), Facts(tickets=0))
    assert found.trouble is None
    assert "is known after 2 weeks" in found.summary
    # What Zendesk says for certain needs no weeks.
    assert verdict(early, early[-1], Facts(is_webhook_active=False)).trouble is not None


def test_where_nothing_ever_came_there_is_no_silence() -> None:
    nothing = assess(Counts({}, None), Facts(), now=START, floor=FLOOR, zone=ZONE)
    assert nothing.trouble is None
    assert nothing.summary == "no email came yet"


NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def calls(*answers: str | int, minutes: float = 5, ago: float = 0) -> list[Call]:
    """The newest first, so many minutes apart."""
    return [
        Call(
            NOW - timedelta(minutes=ago + minutes * number),
            answer if isinstance(answer, str) else "terminated",
            answer if isinstance(answer, int) else None,
        )
        for number, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"has_webhook": False}, Cause.WEBHOOK_MISSING),
        ({"is_webhook_active": False, "calls": calls(401, 401, 401)}, Cause.WEBHOOK_INACTIVE),
        ({"is_webhook_active": True, "is_trigger_active": False}, Cause.TRIGGER_INACTIVE),
        ({"calls": calls(401, 401, 401, 401)}, Cause.SECRET_CHANGED),
        ({"calls": calls("circuit broken", "throttled", 401, 401)}, Cause.SECRET_CHANGED),
        ({"calls": calls("circuit broken", "throttled", 403)}, Cause.REFUSED),
        ({"calls": calls("circuit broken", "throttled", 503)}, Cause.CIRCUIT_BROKEN),
        ({"calls": calls("throttled", "circuit broken", "throttled")}, Cause.CIRCUIT_BROKEN),
        ({"calls": calls("failed", "failed", 500)}, Cause.REFUSED),
        # One of them arrived; two are few; and for less than ten minutes it may be a deploy.
        ({"calls": calls(401, 401, 200, 401), "tickets": 0}, Cause.QUIET),
        ({"calls": calls(401, 401), "tickets": 0}, Cause.QUIET),
        ({"calls": calls(401, 401, 401, 200)}, Cause.SECRET_CHANGED),
        ({"calls": calls(401, 401, 401, minutes=1), "tickets": 2}, Cause.NOT_CALLED),
        # However long ago that was, and however quiet it is since.
        ({"calls": calls(503, 503, 503, minutes=1, ago=600), "tickets": 0}, Cause.QUIET),
        ({"tickets": 2, "refused": 9}, Cause.NOT_CALLED),
        ({"refused": 9}, Cause.WRONG_SIGNATURES),
        ({"refused": 2}, Cause.UNKNOWN),
        ({}, Cause.UNKNOWN),
    ],
)
def test_the_cause_is_what_zendesk_says(facts: dict[str, Any], cause: Cause) -> None:
    assert judge(Facts(**facts)) is cause


def test_a_day_on_which_no_email_is_expected_brings_no_alarm() -> None:
    friday = datetime(2026, 10, 9, 18, tzinfo=ZONE).astimezone(UTC)
    hours = [friday - number * HOUR for number in range(4 * 168)]
    counts = {
        hour: 10 if 8 <= (local := hour.astimezone(ZONE)).hour < 18 and local.weekday() < 5 else 0
        for hour in hours
    }

    def alarm_at(*holidays: date) -> datetime | None:
        usual = Usual.learn(counts, since=hours[-1], until=friday, zone=ZONE, holidays=holidays)
        assert usual is not None
        return usual.alarm_at(friday, FLOOR)

    monday, tuesday = date(2026, 10, 12), date(2026, 10, 13)
    without, on_monday = alarm_at(), alarm_at(monday)
    assert without is not None and without.astimezone(ZONE).date() == monday
    assert on_monday == without + timedelta(days=1)
    assert alarm_at(monday, tuesday) == without + timedelta(days=2)
