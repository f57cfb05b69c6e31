"""Why no email comes: a pure judgement of what Zendesk says, and of what Mailroom sees itself."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

import attrs

# Fewer calls that fail may be a deploy of ours, or one odd ticket.
LEAST_CALLS = 3
LEAST_FAILING = timedelta(minutes=10)
HELD_BACK = frozenset({"circuit broken", "throttled"})


class Cause(StrEnum):
    """Why no email comes."""

    WEBHOOK_MISSING = "webhook_missing"
    WEBHOOK_INACTIVE = "webhook_inactive"
    TRIGGER_INACTIVE = "trigger_inactive"
    CIRCUIT_BROKEN = "circuit_broken"
    SECRET_CHANGED = "secret_changed"  # noqa: S105 - no secret
    REFUSED = "refused"
    """Zendesk calls, and gets another answer than 2xx, or none."""
    WRONG_SIGNATURES = "wrong_signatures"
    """Zendesk was not asked; webhooks with a wrong signature came, from it or from anybody."""
    NOT_CALLED = "not_called"
    """Zendesk has email that it never called the webhook for."""
    QUIET = "quiet"
    """Zendesk has no new email either."""
    UNKNOWN = "unknown"


# What these say holds whatever the hour of the week is.
CERTAIN = frozenset(
    {
        Cause.WEBHOOK_MISSING,
        Cause.WEBHOOK_INACTIVE,
        Cause.TRIGGER_INACTIVE,
        Cause.CIRCUIT_BROKEN,
        Cause.SECRET_CHANGED,
        Cause.REFUSED,
    }
)


@attrs.frozen
class Call:
    """A call of the webhook, as Zendesk tells it."""

    at: datetime
    status: str
    status_code: int | None

    @property
    def is_delivered(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


@attrs.frozen
class Facts:
    """What is known of the way of email. None: it was not asked, or Zendesk did not say."""

    has_webhook: bool | None = None
    is_webhook_active: bool | None = None
    is_trigger_active: bool | None = None
    """Whether a trigger that calls the webhook is. True where it needs none."""
    calls: Sequence[Call] = ()
    """Those since the last email, the newest first."""
    tickets: int | None = None
    """Made by email since the last email that came here."""
    fetched: int = 0
    """Emails that Mailroom found at Zendesk since then, which no call had brought."""
    ambiguity: str | None = None
    """Why it is not known which webhooks are ours."""
    unknown_secret: str | None = None
    """What is wrong with the secret that Zendesk signs with, and how to mend it."""
    refused: int = 0
    """Webhooks with a wrong signature that came here since the last email, and are kept."""


def judge(facts: Facts) -> Cause:
    """The cause that the facts show; the one to be mended first where there are several."""
    if facts.has_webhook is False:
        return Cause.WEBHOOK_MISSING
    if facts.is_webhook_active is False:
        return Cause.WEBHOOK_INACTIVE
    if facts.is_trigger_active is False:
        return Cause.TRIGGER_INACTIVE
    if (cause := _judge_calls(facts.calls)) is not None:
        return cause
    if facts.tickets or facts.fetched:
        return Cause.NOT_CALLED
    if facts.tickets == 0:
        return Cause.QUIET
    return Cause.WRONG_SIGNATURES if facts.refused >= LEAST_CALLS else Cause.UNKNOWN


def _judge_calls(calls: Sequence[Call]) -> Cause | None:
    """What calls show, if the last ones were all in vain."""
    in_vain = [*takewhile(lambda call: not call.is_delivered, calls)]
    # How long they failed counts, not how long ago that was: a quiet night follows many a deploy.
    if len(in_vain) < LEAST_CALLS or in_vain[0].at - in_vain[-1].at < LEAST_FAILING:
        return None
    # A circuit breaks because of answers, which say what is to be mended.
    answers = [call.status_code for call in in_vain if call.status_code is not None]
    if answers and answers[0] == 401:
        return Cause.SECRET_CHANGED
    if answers and 400 <= answers[0] < 500:
        return Cause.REFUSED
    return Cause.CIRCUIT_BROKEN if in_vain[0].status in HELD_BACK else Cause.REFUSED
