"""How long nothing may listen for webhooks before email has to be found by the gap detector."""

from datetime import timedelta

import attrs

from app.alerts.alarms import Database
from app.i18n.formats import decimal
from app.i18n.texts import gettext as _
from app.zendesk.watch import INVOCATIONS, TICKETS

# Zendesk repeats a call that timed out (10 to 12 s) up to five times, and one that was answered 503
# with a Retry-After of less than a minute; a refused connection is not among what it repeats. The
# shortest of it counts: https://developer.zendesk.com/documentation/webhooks/
REPEATED = timedelta(seconds=60)
# A line of the detector that ended well so long ago, or longer, is not known to work.
LEAST_FRESH = timedelta(minutes=10)
ROUNDS = 5

SELECT_LINES = """
SELECT count(*) FILTER (WHERE failures = 0 AND last_ok_at > now() - $2::interval) AS fresh,
    now() - min(last_ok_at) AS age
FROM chores WHERE name = ANY($1::text[])
"""
SELECT_BUSIEST = """
SELECT max(emails) FROM email_hours
WHERE hour > now() - interval '7 days'
    AND date_part('hour', hour AT TIME ZONE 'UTC') = date_part('hour', now() AT TIME ZONE 'UTC')
"""


@attrs.frozen
class Outage:
    """What an outage that begins now would cost."""

    repeated_seconds: int
    """For so long Zendesk repeats what is answered late or with 503 by a proxy."""
    emails_a_minute: float
    """At most, at this hour of the last seven days."""
    detector_age: timedelta | None
    """When the detector looked last; None where it never did."""
    is_found: bool
    """What comes afterwards is found by the detector."""

    @property
    def summary(self) -> str:
        """In a sentence or two."""
        told = _(
            "the web process may be down for about %(seconds)s seconds while Zendesk "
            "repeats its calls, and not at all where connections are refused",
            seconds=self.repeated_seconds,
        )
        if self.emails_a_minute:
            rate = decimal(self.emails_a_minute, 1)
            told += _("; %(rate)s emails a minute came at this hour at most", rate=rate)
        else:
            told += _("; no emails a minute came at this hour at most")
        if self.is_found and self.detector_age is not None:
            age = int(self.detector_age.total_seconds())
            found = _(
                "Later ones are found by the gap detector, which looked %(age)s s ago", age=age
            )
            return f"{told}. {found}"
        return f"{told}. " + _("Nobody would find those that come later")


async def outage_now(database: Database, watched_every: float | None) -> Outage:
    """What an outage that begins now would cost.

    Args:
        watched_every: the pause in seconds between two looks of the detector; None: there is none.
    """
    fresh = max(LEAST_FRESH, timedelta(seconds=ROUNDS * (watched_every or 0)))
    lines = [INVOCATIONS, TICKETS]
    row = await database.fetchrow(SELECT_LINES, lines, fresh)
    busiest = await database.fetchval(SELECT_BUSIEST)
    return Outage(
        repeated_seconds=int(REPEATED.total_seconds()),
        emails_a_minute=(busiest or 0) / 60,
        detector_age=row["age"] if row else None,
        is_found=watched_every is not None and row is not None and row["fresh"] == len(lines),
    )
