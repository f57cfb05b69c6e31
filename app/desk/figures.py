"""The figures of the overview: what is read from the table, and how often.

Every query is bounded by time or count and runs on an index, so looking costs the same beside a
hundred emails and beside a hundred million.
"""

import asyncio
import functools
import math
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import asyncpg

from app.alerts.alarms import find_open
from app.alerts.canary import find_standing as find_canary
from app.api.emails import count_by_status
from app.api.look import Look
from app.api.search import FAILURE
from app.attachments.counts import count_files, find_lag
from app.desk.seen import (
    Addresses,
    Failures,
    Figures,
    Files,
    OldestWaiting,
    Quarantined,
    Run,
    SuspendedMail,
    Task,
    Worker,
)
from app.intake.secret_uses import find_uses
from app.jobs import chore_rows, throughput
from app.jobs.throughput import Throughput
from app.jobs.transitions.common import Database
from app.models.email_attachment import AttachmentState
from app.models.incoming_email import ProcessingStatus
from app.setting_groups.secrets import WebhookSecret
from app.sync.counts import count_deliveries
from app.zendesk.gaps import find_gaps
from app.zendesk.outage import outage_now

# However many browsers watch, the database is asked no more often, and more seldom where it takes
# its time to answer.
REMEMBERED_SECONDS = 1.0
REST_PER_COST = 10.0
LONGEST_REST_SECONDS = 5.0
# The longest runs and the errors of a day cost the most.
DAY_REMEMBERED_SECONDS = 3.0
DAY_REST_PER_COST = 50.0
LOOK_SECONDS = 15.0

COUNTED_AT_MOST = 100_000
# Fewer may be those of a restart.
FAILURES_OF_A_CHORE = 3
DAY = timedelta(days=1)


class Span(StrEnum):
    """What the charts show."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    @property
    def length(self) -> timedelta:
        return {Span.HOUR: timedelta(hours=1), Span.DAY: DAY, Span.MONTH: 30 * DAY}[self]

    @property
    def parts(self) -> int:
        """Of which each is a point of the charts."""
        return {Span.HOUR: 60, Span.DAY: 96, Span.MONTH: 120}[self]


UNCOMPLETED = tuple(state for state in ProcessingStatus if state != ProcessingStatus.COMPLETED)

COUNT_QUARANTINED = """
SELECT count(*) AS all, count(*) FILTER (WHERE is_signed) AS signed
FROM (
    SELECT is_signed FROM quarantined_webhooks WHERE reason <> 'suspended' LIMIT $1
) AS counted
"""

COUNT_SUSPENDED = """
SELECT count(*) AS all, count(*) FILTER (WHERE archived_at IS NOT NULL) AS archived
FROM (SELECT archived_at FROM suspended_tickets LIMIT $1) AS counted
"""

SELECT_OLDEST_WAITING = """
SELECT oldest.id, oldest.received_at
FROM unnest(ARRAY['received', 'queued']) AS state, LATERAL (
    SELECT id, received_at FROM incoming_emails
    WHERE processing_status = state ORDER BY received_at LIMIT 1
) AS oldest
ORDER BY oldest.received_at
LIMIT 1
"""

# What the watch over silence said last.
SELECT_WATCH = "SELECT last_note FROM chores WHERE name = 'silence'"

SELECT_RANGES = """
SELECT CASE WHEN jsonb_typeof(ranges) = 'array' THEN jsonb_array_length(ranges) ELSE 0 END
    AS ranges, now() - fetched_at AS age, outside, now() - outside_at AS outside_ago, hidden
FROM zendesk_ranges ORDER BY fetched_at DESC LIMIT 1
"""

SELECT_WORKERS = """
SELECT name, threads, started_at, now() - seen_at AS silence, COALESCE(in_work, 0) AS in_work
FROM workers LEFT JOIN (
    SELECT claimed_by AS name, count(*) AS in_work FROM (
        SELECT claimed_by FROM incoming_emails WHERE processing_status = 'processing' LIMIT $1
    ) AS held
    GROUP BY 1
) AS busy USING (name)
ORDER BY name
LIMIT $2
"""
WORKERS_LISTED = 200
# Of each worker the longest, found by ix_incoming_emails_status_received.
SELECT_TASKS = """
SELECT id, subject, claimed_by, COALESCE(now() - started_at, interval '0') AS lasts
FROM (
    SELECT id, subject, claimed_by, started_at,
        row_number() OVER (PARTITION BY claimed_by ORDER BY started_at) AS place
    FROM (
        SELECT id, left(subject, 120) AS subject, claimed_by, started_at FROM incoming_emails
        WHERE processing_status = 'processing' ORDER BY received_at LIMIT $1
    ) AS held
) AS placed
WHERE place <= $2
ORDER BY started_at
"""
TASKS_READ = 5_000
TASKS_LISTED = 4

GROUP_FAILURES = f"""
SELECT {FAILURE} AS failure, count(*) AS emails, max(completed_at) AS latest_at
FROM (
    SELECT processing_error, completed_at FROM incoming_emails
    WHERE processing_status = 'failed'
        AND completed_at >= date_trunc('minute', now() - interval '1 day')
    ORDER BY completed_at DESC
    LIMIT $1
) AS newest
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT 10
"""  # noqa: S608 - a constant
FAILURES_GROUPED = 10_000

# `processed_at` is the end of the run; an operator may have completed the email later.
SELECT_LONGEST_RUNS = """
SELECT id, processing_status, processed_at - started_at AS took
FROM incoming_emails
WHERE processing_status IN ('completed', 'failed') AND completed_at >= now() - interval '1 day'
    AND processed_at > started_at
ORDER BY processed_at - started_at DESC
LIMIT 10
"""


class Lookout:
    """Looks at the table, and remembers for a few seconds what it saw, or that it saw nothing."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        are_files_fetched: bool = True,
        receiver: str | None = None,
        watched_every: float | None = None,
        secrets: Sequence[WebhookSecret] = (),
    ) -> None:
        self._pool = pool
        self._are_files_fetched = are_files_fetched
        self._receiver = receiver
        self._watched_every = watched_every
        self._secrets = secrets
        self._failures: list[Failures] = []
        self._longest_runs: list[Run] = []
        self._look_at_day_after = -math.inf
        # Whoever waits for a database that is away would wait as long again, one after the other.
        self._figures = Look(self._take, rest_seconds=_rest_seconds)
        self._spans = {
            span: Look(functools.partial(self._take_span, span), rest_seconds=_rest_seconds)
            for span in Span
        }

    async def look(self) -> Figures:
        """The figures, a few seconds old at most.

        Raises:
            Exception: one of `CANNOT_ASK`: the database does not answer.
        """
        return await self._figures.see()

    async def look_at(self, span: Span) -> Throughput:
        """What came and ended in a span until now, as old as the figures at most.

        Raises:
            Exception: one of `CANNOT_ASK`: the database does not answer.
        """
        return await self._spans[span].see()

    async def close(self) -> None:
        """Give up what is being looked at."""
        await self._figures.close()
        for look in self._spans.values():
            await look.close()

    async def _take_span(self, span: Span) -> Throughput:
        async with asyncio.timeout(LOOK_SECONDS), self._pool.acquire() as connection:
            return await throughput.look(connection, span.length, span.parts)

    async def _take(self) -> Figures:
        async with asyncio.timeout(LOOK_SECONDS), self._pool.acquire() as connection:
            return await self._look(connection)

    async def _look(self, database: Database) -> Figures:
        now: datetime = await database.fetchval("SELECT now()")
        if (began := time.monotonic()) > self._look_at_day_after:
            self._failures = [
                Failures(**row) for row in await database.fetch(GROUP_FAILURES, FAILURES_GROUPED)
            ]
            self._longest_runs = [
                Run(row["id"], ProcessingStatus(row["processing_status"]), row["took"])
                for row in await database.fetch(SELECT_LONGEST_RUNS)
            ]
            ended = time.monotonic()
            self._look_at_day_after = ended + max(
                DAY_REMEMBERED_SECONDS, DAY_REST_PER_COST * (ended - began)
            )
        counts = await count_by_status(database, UNCOMPLETED, at_most=COUNTED_AT_MOST)
        oldest = await database.fetchrow(SELECT_OLDEST_WAITING)
        quarantined = await database.fetchrow(COUNT_QUARANTINED, COUNTED_AT_MOST)
        suspended = await database.fetchrow(COUNT_SUSPENDED, COUNTED_AT_MOST)
        addresses = await database.fetchrow(SELECT_RANGES)
        files = await self._look_at_files(database, now)
        workers = await database.fetch(SELECT_WORKERS, COUNTED_AT_MOST, WORKERS_LISTED)
        tasks: dict[str | None, list[Task]] = {}
        for row in await database.fetch(SELECT_TASKS, TASKS_READ, TASKS_LISTED):
            task = Task(row["id"], row["subject"], row["lasts"])
            tasks.setdefault(row["claimed_by"], []).append(task)
        return Figures(
            at=now,
            alarms=await find_open(database),
            watch=await database.fetchval(SELECT_WATCH),
            gaps=await find_gaps(database),
            states={state: count.emails for state, count in counts.items()},
            quarantined=Quarantined(**(quarantined or {"all": 0, "signed": 0})),
            suspended=SuspendedMail(**(suspended or {"all": 0, "archived": 0})),
            addresses=Addresses(**addresses) if addresses else None,
            canary=await find_canary(database),
            secrets=await find_uses(database, self._secrets),
            outage=await outage_now(database, self._watched_every),
            files=files,
            deliveries=await count_deliveries(database, self._receiver, at_most=COUNTED_AT_MOST),
            failing_chores=[
                chore
                for chore in await chore_rows.find_all(database)
                if chore.failures >= FAILURES_OF_A_CHORE
            ],
            waiting_for_retry=await throughput.count_waiting_for_retry(
                database, at_most=COUNTED_AT_MOST
            ),
            oldest_waiting=(
                OldestWaiting(oldest["id"], now - oldest["received_at"]) if oldest else None
            ),
            workers=[Worker(**row, tasks=tasks.get(row["name"], ())) for row in workers],
            failures=self._failures,
            longest_runs=self._longest_runs,
        )

    async def _look_at_files(self, database: Database, now: datetime) -> Files:
        pending = await count_files(database, [AttachmentState.PENDING], at_most=COUNTED_AT_MOST)
        ended = [AttachmentState.FAILED, AttachmentState.FLAGGED]
        today = await count_files(database, ended, since=now - DAY, at_most=COUNTED_AT_MOST)
        return Files(
            pending=pending[AttachmentState.PENDING].files,
            # What nobody is to fetch is not late.
            lag=await find_lag(database) if self._are_files_fetched else timedelta(0),
            failed_today=today[AttachmentState.FAILED].files,
            flagged_today=today[AttachmentState.FLAGGED].files,
        )


def _rest_seconds(cost_seconds: float) -> float:
    return max(REMEMBERED_SECONDS, min(REST_PER_COST * cost_seconds, LONGEST_REST_SECONDS))
