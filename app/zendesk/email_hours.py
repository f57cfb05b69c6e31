"""How many emails came by webhook in each hour of the last weeks, kept up in a small table: looking
at all emails of a month would cost a large archive too much. What was fetched from Zendesk's API
did not come, and must not hide that nothing does."""

from datetime import datetime, timedelta

import asyncpg
import attrs

from app.alerts.alarms import Database

KEPT = timedelta(weeks=5)
COUNTED_AT_ONCE = timedelta(days=1)
# A moment is that of the transaction's begin, so a commit may still add to the last minutes.
UNSETTLED = timedelta(minutes=10)

FIND_SETTLED = """
SELECT now() AS now, (SELECT max(hour) FROM email_hours) AS settled,
    (SELECT min(created_at) FROM incoming_emails WHERE created_at >= now() - $1::interval) AS first
"""
# What was pruned or erased since had come all the same.
COUNT = """
WITH counted AS (
    SELECT date_trunc('hour', created_at, 'UTC') AS hour, count(*) AS emails
    FROM incoming_emails
    WHERE created_at >= $1 AND created_at < $2 AND origin IN ('webhook', 'event')
    GROUP BY 1
    UNION ALL
    SELECT date_trunc('hour', $1, 'UTC'), 0
)
INSERT INTO email_hours AS kept (hour, emails)
SELECT hour, max(emails) FROM counted GROUP BY hour
ON CONFLICT (hour) DO UPDATE SET emails = greatest(kept.emails, excluded.emails)
"""
FORGET = "DELETE FROM email_hours WHERE hour < now() - $1::interval"
SELECT = "SELECT hour, emails FROM email_hours ORDER BY hour"
# After a backfill there may be any number before it that did not come: no more are looked at, for
# the hour in which some came last is known.
FIND_LAST = """
SELECT created_at FROM (
    SELECT created_at, origin FROM incoming_emails ORDER BY created_at DESC LIMIT $1
) AS newest
WHERE origin IN ('webhook', 'event')
ORDER BY created_at DESC LIMIT 1
"""
LOOKED_AT_FOR_LAST = 20_000
# Zendesk had them and did not bring them.
COUNT_FETCHED = """
SELECT count(*) FROM (
    SELECT FROM incoming_emails
    WHERE created_at > $1 AND origin NOT IN ('webhook', 'event')
    LIMIT 100
) AS fetched
"""


@attrs.frozen
class Counts:
    """What came in the last weeks."""

    hours: dict[datetime, int]
    """By the hour in UTC; those without any may be missing."""
    last_email_at: datetime | None
    """None where none ever came, or all that did were pruned long ago."""
    fetched: int = 0
    """Emails that were fetched from Zendesk's API since then; a hundred are counted at most."""

    @property
    def since(self) -> datetime | None:
        """When counting began."""
        return min(self.hours, default=None)


async def count_up(database: Database) -> None:
    """Bring the counts up to now. The first time takes a look at the emails of weeks, day by day.

    Raises:
        Exception: the database is away.
    """
    found = await database.fetchrow(FIND_SETTLED, KEPT)
    if found is None or (found["settled"] is None and found["first"] is None):
        return
    begin = found["first"] if found["settled"] is None else found["settled"] - UNSETTLED
    while begin <= found["now"]:
        end = min(begin + COUNTED_AT_ONCE, found["now"] + UNSETTLED)
        begin = begin.replace(minute=0, second=0, microsecond=0)
        await database.execute(COUNT, begin, end)
        begin = end
    await database.execute(FORGET, KEPT)


async def look(database: "asyncpg.Pool[asyncpg.Record]") -> Counts:
    """The counts as they were brought up last, and the last email as it is now.

    Raises:
        Exception: the database is away.
    """
    hours = {row["hour"]: row["emails"] for row in await database.fetch(SELECT)}
    last = await database.fetchval(FIND_LAST, LOOKED_AT_FOR_LAST)
    if last is None and any(hours.values()):
        # They were pruned since, or are behind many that did not come.
        last = max(hour for hour, emails in hours.items() if emails)
    fetched = 0 if last is None else await database.fetchval(COUNT_FETCHED, last)
    return Counts(hours, last, fetched)
