"""The `throughput` table: how many emails came and ended in each minute of the last weeks. It stays
when emails are pruned or erased, and tells nothing of any of them. Only `app.jobs.throughput`
writes it."""

from piccolo.columns import JSONB, Integer, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class ThroughputMinute(Table, tablename="throughput", db=DB):
    """One minute. What was counted is null in a row that was only sampled so far."""

    minute = Timestamptz(primary_key=True, default=TimestamptzNow(), help_text="When it began")
    accepted = Integer(null=True, default=None, help_text="Emails that were stored")
    completed = Integer(null=True, default=None)
    failed = Integer(null=True, default=None)
    retried = Integer(
        null=True, default=None, help_text="Retries that the emails which ended then had used"
    )
    durations = JSONB(
        default="{}",
        help_text="How many completed emails took how long, by the step of the logarithmic scale",
    )
    backlog = Integer(
        null=True, default=None, help_text="Emails that had not ended: a sample, capped"
    )
    oldest_seconds = Integer(
        null=True, default=None, help_text="Age of the one that waited longest: a sample"
    )
