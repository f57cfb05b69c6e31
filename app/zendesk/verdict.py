"""Whether a silence is an alarm: a pure function of counts, facts and a clock, and its words."""

from collections.abc import Collection
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import attrs

from app.alerts.alarms import Trouble
from app.durations import in_words
from app.zendesk.causes import CERTAIN, Cause, Facts, judge
from app.zendesk.email_hours import Counts
from app.zendesk.usual_hours import LEAST_WEEKS, Usual

# What it is, and what to do about it.
WORDS = {
    Cause.WEBHOOK_MISSING: (
        "Zendesk has no webhook that leads to Mailroom",
        "make it anew with `mailroom zendesk setup`, or name it in MAILROOM_ZENDESK_WEBHOOK_ID",
    ),
    Cause.WEBHOOK_INACTIVE: (
        "the webhook is inactive at Zendesk",
        "activate it in Zendesk's Admin Center, or with `mailroom zendesk setup`",
    ),
    Cause.TRIGGER_INACTIVE: (
        "no active trigger at Zendesk calls the webhook",
        "activate it in Zendesk's Admin Center, or with `mailroom zendesk setup`",
    ),
    Cause.CIRCUIT_BROKEN: (
        "Zendesk holds its calls of the webhook back (throttled, or its circuit broke)",
        "see that Mailroom answers at its public address: `mailroom doctor --url`",
    ),
    Cause.SECRET_CHANGED: (
        "Zendesk's calls are answered 401: the webhook's secret is another one by now",
        "set MAILROOM_WEBHOOK_SECRETS anew, then run `mailroom quarantine retry --all`",
    ),
    Cause.REFUSED: (
        "Zendesk calls the webhook in vain",
        "see its activity in Zendesk's Admin Center, and `mailroom doctor --url`",
    ),
    Cause.WRONG_SIGNATURES: (
        "webhooks came whose signature is wrong, so the webhook's secret may be another one by now",
        "compare it with MAILROOM_WEBHOOK_SECRETS; then run `mailroom quarantine retry --all`",
    ),
    Cause.NOT_CALLED: (
        "Zendesk has new tickets by email, and did not call the webhook",
        "see the conditions of its trigger in Zendesk's Admin Center",
    ),
    Cause.UNKNOWN: (
        "Mailroom does not know why",
        "see at Zendesk that the webhook and its trigger are active",
    ),
}
UNEXPLAINED = (Cause.UNKNOWN, Cause.WRONG_SIGNATURES, Cause.NOT_CALLED)


@attrs.frozen
class Verdict:
    """How it stands with email that should come."""

    at: datetime
    last_email_at: datetime | None
    usual: Usual | None
    """None: there are not enough weeks to learn from, or nothing came in them."""
    alarm_at: datetime | None
    """From when on the silence is longer than usual; it may be over by then."""
    cause: Cause
    why_unknown: str | None = None
    """Why Zendesk was not asked, or did not tell."""

    @property
    def is_silent(self) -> bool:
        """Whether nothing came for longer than usual."""
        return self.alarm_at is not None and self.alarm_at <= self.at

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong; None where nothing is."""
        is_wrong = self.cause in CERTAIN or (self.is_silent and self.cause is not Cause.QUIET)
        if not is_wrong:
            return None
        what, mend = WORDS[self.cause]
        if self.cause in UNEXPLAINED and self.why_unknown:
            what += f" ({self.why_unknown})"
        return Trouble(f"{self.silence}: {what}", mend)

    @property
    def silence(self) -> str:
        """How long nothing came, in words."""
        if self.last_email_at is None:
            return "no email came yet"
        lasted = in_words(self.at - self.last_email_at)
        if not self.is_silent or self.usual is None:
            return f"the last email came {lasted} ago"
        expected = self.usual.expected(self.last_email_at, self.at)
        return f"no email came for {lasted}, in which {expected:.0f} usually come"

    @property
    def summary(self) -> str:
        """All of it in a sentence, for operators."""
        if (trouble := self.trouble) is not None:
            return f"{trouble.text}: {trouble.mend}"
        if self.is_silent:
            return f"{self.silence}; Zendesk has no new ticket by email either: a quiet day"
        if self.last_email_at is None:
            return self.silence
        if self.usual is None:
            return f"{self.silence}; what is usual is known after {LEAST_WEEKS} weeks with email"
        if self.alarm_at is None:
            return f"{self.silence}; so few come that a silence would tell nothing for weeks"
        return (
            f"{self.silence}; a silence would be unusual from "
            f"{self.alarm_at.astimezone(self.usual.zone):%a %H:%M} on ({self.usual.zone})"
        )


def assess(
    counts: Counts,
    facts: Facts,
    *,
    now: datetime,
    floor: timedelta,
    zone: ZoneInfo,
    holidays: Collection[date] = (),
    why_unknown: str | None = None,
) -> Verdict:
    """Judge how it stands.

    Args:
        floor: no silence shorter than that is unusual.
        zone: in which the desk's hours are.
        holidays: days in that zone on which no email is expected.
        why_unknown: why Zendesk was not asked, or did not tell.
    """
    last, since = counts.last_email_at, counts.since
    usual = (
        None
        if last is None or since is None
        else Usual.learn(counts.hours, since=since, until=last, zone=zone, holidays=holidays)
    )
    alarm_at = None if usual is None or last is None else usual.alarm_at(last, floor)
    return Verdict(now, last, usual, alarm_at, judge(facts), why_unknown)
