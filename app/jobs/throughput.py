"""How many emails come and end, minute by minute, kept up in a small table: looking at all emails
of a month would cost a large archive too much. What was pruned, erased or tried again since had
happened all the same."""

import json
import time
from collections import Counter
from datetime import datetime, timedelta

import attrs

from app.jobs.transitions.common import DUE_AT, WITHOUT_MESSAGE, Database

KEPT = timedelta(days=31)
# A moment is that of the transaction's begin, so a commit may still add to the last minutes.
UNSETTLED = timedelta(minutes=2)
MINUTE = timedelta(minutes=1)
LEAST_AT_ONCE, MOST_AT_ONCE = timedelta(minutes=10), timedelta(days=1)
LONG_STEP_SECONDS = 0.3
# For the weeks before the first look, which are counted from the newest hour on; the rest of them
# the next time.
COUNTING_SECONDS = 5.0
# Without anybody who keeps the table up, the newest minutes are counted for each look.
MOST_UNCOUNTED = timedelta(hours=1)
SAMPLED_AT_MOST = 100_000
# Steps for each doubling of a duration, so that a percentile is right to a tenth.
STEPS = 4

FIND_COUNTED = """
SELECT date_trunc('minute', now()) AS minute,
    (SELECT min(minute) FROM throughput WHERE accepted IS NOT NULL) AS first,
    (SELECT max(minute) FROM throughput WHERE accepted IS NOT NULL) AS last,
    (SELECT date_trunc('minute', min(created_at)) FROM incoming_emails) AS first_email
"""
COUNTED = f"""
accepted AS (
    SELECT date_trunc('minute', created_at) AS minute, count(*) AS emails
    FROM incoming_emails WHERE created_at >= $1 AND created_at < $2
    GROUP BY 1
),
ended AS (
    SELECT date_trunc('minute', completed_at) AS minute, processing_status AS state,
        floor({STEPS} * log(2, greatest(
            extract(epoch FROM completed_at - created_at)::numeric, 0.001
        )))::int AS step,
        count(*) AS emails, sum(retry_count) AS retries
    FROM incoming_emails
    WHERE processing_status IN ('completed', 'failed')
        AND completed_at >= $1 AND completed_at < $2
    GROUP BY 1, 2, 3
),
ends AS (
    SELECT minute, sum(emails) FILTER (WHERE state = 'completed') AS completed,
        sum(emails) FILTER (WHERE state = 'failed') AS failed, sum(retries) AS retried,
        jsonb_object_agg(step, emails) FILTER (WHERE state = 'completed') AS durations
    FROM ended GROUP BY 1
),
minutes AS (
    SELECT minute, COALESCE(accepted.emails, 0) AS accepted, COALESCE(completed, 0) AS completed,
        COALESCE(failed, 0) AS failed, COALESCE(retried, 0) AS retried,
        COALESCE(durations, '{{}}') AS durations
    FROM generate_series($1::timestamptz, $2::timestamptz - interval '1 minute', '1 minute')
        AS minute
    LEFT JOIN accepted USING (minute) LEFT JOIN ends USING (minute)
)"""  # noqa: S608 - a constant
KEEP = f"""
WITH {COUNTED}
INSERT INTO throughput AS kept (minute, accepted, completed, failed, retried, durations)
SELECT * FROM minutes ORDER BY minute
ON CONFLICT (minute) DO UPDATE SET accepted = excluded.accepted, completed = excluded.completed,
    failed = excluded.failed, retried = excluded.retried, durations = excluded.durations
"""  # noqa: S608 - a constant
COUNT_NEWEST = f"WITH {COUNTED} SELECT * FROM minutes"  # noqa: S608 - a constant
SAMPLE_NOW = """
SELECT sum(emails)::int AS backlog,
    greatest(extract(epoch FROM now() - min(oldest)), 0)::int AS oldest_seconds
FROM unnest(ARRAY['received', 'queued', 'processing']) AS state, LATERAL (
    SELECT count(*) AS emails, min(received_at) AS oldest FROM (
        SELECT received_at FROM incoming_emails
        WHERE processing_status = state ORDER BY received_at LIMIT $1
    ) AS waiting
) AS sampled
"""
# Of several web processes, and of those who restart, each samples a minute.
SAMPLE = f"""
INSERT INTO throughput AS kept (minute, backlog, oldest_seconds)
SELECT date_trunc('minute', now()), backlog, COALESCE(oldest_seconds, 0) FROM ({SAMPLE_NOW}) AS seen
ON CONFLICT (minute) DO UPDATE SET backlog = greatest(kept.backlog, excluded.backlog),
    oldest_seconds = greatest(kept.oldest_seconds, excluded.oldest_seconds)
"""  # noqa: S608 - a constant
FORGET = "DELETE FROM throughput WHERE minute < now() - $1::interval"

SELECT = """
SELECT to_timestamp(floor(extract(epoch FROM minute) / $3) * $3) AS part,
    COALESCE(sum(accepted), 0)::int AS accepted, COALESCE(sum(completed), 0)::int AS completed,
    COALESCE(sum(failed), 0)::int AS failed, COALESCE(sum(retried), 0)::int AS retried,
    max(backlog) AS backlog, max(oldest_seconds) AS oldest_seconds
FROM throughput WHERE minute >= $1 AND minute < $2
GROUP BY 1
"""
# One row that is not ours is left out, and does not take the overview with it.
SELECT_DURATIONS = """
SELECT key::int AS step, sum(least(value::numeric, 1e9))::bigint AS emails
FROM throughput,
    jsonb_each(CASE WHEN jsonb_typeof(durations) = 'object' THEN durations ELSE '{}' END)
WHERE minute >= $1 AND minute < $2 AND durations <> '{}'
    AND key ~ '^-?(1[0-5]|[0-9])?[0-9]$' AND jsonb_typeof(value) = 'number'
GROUP BY 1
"""
COUNT_WAITING_FOR_RETRY = f"""
SELECT count(*) FROM (
    SELECT FROM incoming_emails WHERE {WITHOUT_MESSAGE} AND {DUE_AT} > now() AND claims > 0 LIMIT $1
) AS waiting
"""  # noqa: S608 - a constant


@attrs.define
class Part:
    """What happened in one part of a span."""

    accepted: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    """Retries that the emails which ended in it had used."""
    backlog: int | None = None
    """The most that had not ended; None where nobody looked."""
    oldest_seconds: int | None = None
    """The highest age of the one that waited longest."""

    def add(self, other: "Part") -> None:
        """Take in what happened in a part of this part."""
        self.accepted += other.accepted
        self.completed += other.completed
        self.failed += other.failed
        self.retried += other.retried


@attrs.frozen
class Throughput:
    """What happened in a span that ends now."""

    begin: datetime
    parts: list[Part]
    """The oldest first; the last one is not over yet."""
    durations: Counter[int]
    """Completed emails by the step of the time from accept to completion."""

    @property
    def total(self) -> Part:
        """All parts in one."""
        total = Part()
        for part in self.parts:
            total.add(part)
        return total

    def percentile(self, share: float) -> timedelta | None:
        """The time from accept to completion that this share of the completed emails kept within,
        right to a tenth; None where none was completed."""
        wanted, seen = share * self.durations.total(), 0
        for step in sorted(self.durations):
            seen += self.durations[step]
            if seen >= wanted:
                return timedelta(seconds=2 ** ((step + 0.5) / STEPS))
        return None


async def keep_up(database: Database, *, seconds: float = COUNTING_SECONDS) -> bool:
    """Sample the backlog, and bring the counts up to now.

    Args:
        seconds: after which no more of the weeks before are counted.

    Returns:
        Whether all of them are counted.

    Raises:
        Exception: the database is away.
    """
    until = time.monotonic() + seconds
    await database.execute(SAMPLE, SAMPLED_AT_MOST)
    found = await database.fetchrow(FIND_COUNTED)
    if found is None or found["first_email"] is None:
        return True
    settled = found["minute"] - UNSETTLED
    earliest = max(found["minute"] - KEPT, min(found["first_email"], settled))
    first = found["first"] or settled
    end = found["last"] + MINUTE if found["last"] else settled
    stride = LEAST_AT_ONCE
    while end < settled:
        begin, end = end, min(end + stride, settled)
        stride = await _keep(database, begin, end)
    while first > earliest and time.monotonic() < until:
        end, first = first, max(first - stride, earliest)
        stride = await _keep(database, first, end)
    await database.execute(FORGET, KEPT)
    is_all: bool = first <= earliest
    return is_all


async def _keep(database: Database, begin: datetime, end: datetime) -> timedelta:
    """Returns how much may be counted the next time."""
    began = time.monotonic()
    await database.execute(KEEP, begin, end)
    is_long = time.monotonic() - began > LONG_STEP_SECONDS
    return LEAST_AT_ONCE if is_long else min(2 * (end - begin) + LEAST_AT_ONCE, MOST_AT_ONCE)


async def look(database: Database, span: timedelta, parts: int) -> Throughput:
    """What happened in a span that ends with this minute, which is counted, too.

    Raises:
        Exception: the database is away.
    """
    part_seconds = int(span.total_seconds()) // parts
    found = await database.fetchrow(FIND_COUNTED)
    now: datetime = found["minute"] if found else await database.fetchval("SELECT now()")
    last = datetime.fromtimestamp(now.timestamp() // part_seconds * part_seconds, now.tzinfo)
    begin = last - (parts - 1) * timedelta(seconds=part_seconds)
    newest = max(begin, now - MOST_UNCOUNTED)
    if found and found["last"]:
        newest = max(newest, found["last"] + MINUTE)
    made = [Part() for _ in range(parts)]

    def place(moment: datetime) -> int:
        return int((moment - begin).total_seconds()) // part_seconds

    for row in await database.fetch(SELECT, begin, newest, part_seconds):
        made[place(row["part"])] = Part(*list(row.values())[1:])
    durations = Counter[int]()
    for row in await database.fetch(SELECT_DURATIONS, begin, newest):
        durations[row["step"]] += row["emails"]
    for row in await database.fetch(COUNT_NEWEST, newest, now + MINUTE):
        *counts, kept_durations = list(row.values())[1:]
        made[place(row["minute"])].add(Part(*map(int, counts)))
        for step, emails in json.loads(kept_durations).items():
            durations[int(step)] += emails
    for row in await database.fetch(SELECT, newest, now + MINUTE, part_seconds):
        part = made[place(row["part"])]
        part.backlog = _most(part.backlog, row["backlog"])
        part.oldest_seconds = _most(part.oldest_seconds, row["oldest_seconds"])
    backlog = await database.fetchrow(SAMPLE_NOW, SAMPLED_AT_MOST)
    if backlog is not None:
        # The last point is what is so now.
        made[-1].backlog = backlog["backlog"]
        made[-1].oldest_seconds = backlog["oldest_seconds"] or 0
    return Throughput(begin, made, durations)


def _most(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


async def count_waiting_for_retry(database: Database, *, at_most: int) -> int:
    """How many emails failed an attempt and wait for the next one."""
    count: int = await database.fetchval(COUNT_WAITING_FOR_RETRY, at_most)
    return count
