"""The figures of the overview: what is read from the table, and how often.

Every query is bounded by time or count and runs on an index, so looking costs the same beside a
hundred emails and beside a hundred million.
"""

import asyncio
import math
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

import asyncpg
import attrs

from app.api.emails import count_by_status
from app.api.look import Look
from app.attachments.counts import count_files, find_lag
from app.jobs.heartbeat import SILENT_AFTER
from app.jobs.transitions.common import Database
from app.models.email_attachment import AttachmentState
from app.models.incoming_email import ProcessingStatus

# However many browsers watch, the database is asked no more often.
REMEMBERED_SECONDS = 3.0
# The longest runs and the errors of a day change slowly and cost the most.
DAY_REMEMBERED_SECONDS = 30.0
LOOK_SECONDS = 15.0

COUNTED_AT_MOST = 100_000
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# A moment is that of the transaction's begin, so a commit may still add to the last minutes.
UNSETTLED = timedelta(minutes=2)

UNCOMPLETED = tuple(state for state in ProcessingStatus if state != ProcessingStatus.COMPLETED)

COUNT_QUARANTINED = """
SELECT count(*) AS all, count(*) FILTER (WHERE is_signed) AS signed
FROM (SELECT is_signed FROM quarantined_webhooks LIMIT $1) AS counted
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

COUNT_ACCEPTED = """
SELECT date_trunc('minute', created_at) AS minute, count(*) AS emails
FROM incoming_emails
WHERE created_at >= $1
GROUP BY 1
"""

COUNT_COMPLETED = """
SELECT date_trunc('minute', completed_at) AS minute, count(*) AS emails
FROM incoming_emails
WHERE processing_status = 'completed' AND completed_at >= $1
GROUP BY 1
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

# The first line of an error groups better than its traceback. `match` is how Piccolo Admin finds
# just the emails of a group: errors that are one short line by their whole text, others by how they
# begin, for which it does not heed the case. The minute is that of the link, too.
GROUP_FAILURES = """
SELECT min(line) AS error, match, count(*) AS emails
FROM (
    SELECT left(line, $2) AS line, CASE
        WHEN length(line) < $2 AND line = error THEN 'exact'
        WHEN length(line) < $2 THEN 'line'
        ELSE 'starts' END AS match
    FROM (
        SELECT error, split_part(error, E'\\n', 1) AS line
        FROM (
            SELECT COALESCE(processing_error, '') AS error FROM incoming_emails
            WHERE processing_status = 'failed'
                AND completed_at >= date_trunc('minute', now() - interval '1 day')
            ORDER BY completed_at DESC
            LIMIT $1
        ) AS newest
    ) AS lines
) AS shortened
GROUP BY match, CASE match WHEN 'exact' THEN line ELSE lower(line) END
ORDER BY 3 DESC, 1
LIMIT 10
"""
ERROR_SHOWN = 120
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


@attrs.frozen
class OldestWaiting:
    """The email that came first of those that no worker holds yet."""

    id: UUID
    age: timedelta


@attrs.frozen
class Quarantined:
    """Refused webhooks that wait for somebody; at most COUNTED_AT_MOST are counted."""

    all: int
    signed: int
    """Those that Zendesk signed, so each is an email with a fault."""


@attrs.frozen
class Files:
    """The files of emails; at most COUNTED_AT_MOST of each are counted."""

    pending: int
    lag: timedelta
    """How long the file is due that waits longest for a worker."""
    failed_today: int
    flagged_today: int


@attrs.frozen
class Worker:
    """A worker process that was heard of lately."""

    name: str
    threads: int
    started_at: datetime
    silence: timedelta
    """Time since its last sign of life."""

    in_work: int

    @property
    def is_alive(self) -> bool:
        return self.silence < SILENT_AFTER


@attrs.frozen
class Failures:
    """Emails that failed with the same error."""

    error: str
    """Its first line, if it is not too long."""

    match: Literal["exact", "line", "starts"]
    """Whether that is the whole error, its whole first line, or how that begins."""

    emails: int


@attrs.frozen
class Run:
    """One run of the handler."""

    id: UUID
    status: ProcessingStatus
    took: timedelta


@attrs.frozen
class Rates:
    """Emails a minute: one number for each equal part of a span, the oldest first."""

    accepted: list[float]
    completed: list[float]

    @property
    def accepted_mean(self) -> float:
        return sum(self.accepted) / len(self.accepted)

    @property
    def completed_mean(self) -> float:
        return sum(self.completed) / len(self.completed)


@attrs.frozen
class Figures:
    """One look at the table."""

    at: datetime
    states: dict[ProcessingStatus, int]
    """Emails in each state but `completed`; at most COUNTED_AT_MOST are counted."""

    completed_today: int
    """In the last 24 hours."""

    quarantined: Quarantined
    files: Files
    oldest_waiting: OldestWaiting | None
    hour: Rates
    day: Rates
    workers: list[Worker]
    """Those that live, and those that vanished lately."""

    failures: list[Failures]
    longest_runs: list[Run]

    @property
    def workers_alive(self) -> int:
        return sum(worker.is_alive for worker in self.workers)


class Minutes:
    """How many emails there were in each minute of the last day.

    A minute that is over does not change, so only the last ones are counted anew.
    """

    def __init__(self, query: str) -> None:
        self._query = query
        self._counts: Counter[datetime] = Counter()
        self._settled_until = datetime.min.replace(tzinfo=UTC)

    async def count(self, database: Database, now: datetime) -> None:
        """Bring the counts up to now."""
        this_minute = now.replace(second=0, microsecond=0)
        since = max(self._settled_until, this_minute - DAY)
        rows = await database.fetch(self._query, since)
        kept = {at: n for at, n in self._counts.items() if this_minute - DAY <= at < since}
        self._counts = Counter(kept | {row["minute"]: row["emails"] for row in rows})
        self._settled_until = this_minute - UNSETTLED

    def total(self) -> int:
        return self._counts.total()

    def per_minute(self, now: datetime, span: timedelta, parts: int) -> list[float]:
        """The mean of each part of a span that ends with the last whole minute."""
        start = now.replace(second=0, microsecond=0) - span
        minutes = int(span / parts / timedelta(minutes=1))
        return [
            sum(
                self._counts[start + timedelta(minutes=part * minutes + minute)]
                for minute in range(minutes)
            )
            / minutes
            for part in range(parts)
        ]


class Lookout:
    """Looks at the table, and remembers for a few seconds what it saw, or that it saw nothing."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._accepted = Minutes(COUNT_ACCEPTED)
        self._completed = Minutes(COUNT_COMPLETED)
        self._failures: list[Failures] = []
        self._longest_runs: list[Run] = []
        self._looked_at_day = -math.inf
        # Whoever waits for a database that is away would wait as long again, one after the other.
        self._figures = Look(self._take, rest_seconds=lambda cost: REMEMBERED_SECONDS)

    async def look(self) -> Figures:
        """The figures, a few seconds old at most.

        Raises:
            Exception: one of `CANNOT_ASK`: the database does not answer.
        """
        return await self._figures.see()

    async def _take(self) -> Figures:
        async with asyncio.timeout(LOOK_SECONDS), self._pool.acquire() as connection:
            return await self._look(connection)

    async def _look(self, database: Database) -> Figures:
        now: datetime = await database.fetchval("SELECT now()")
        await self._accepted.count(database, now)
        await self._completed.count(database, now)
        if time.monotonic() > self._looked_at_day + DAY_REMEMBERED_SECONDS:
            self._failures = [
                Failures(**row)
                for row in await database.fetch(GROUP_FAILURES, FAILURES_GROUPED, ERROR_SHOWN)
            ]
            self._longest_runs = [
                Run(row["id"], ProcessingStatus(row["processing_status"]), row["took"])
                for row in await database.fetch(SELECT_LONGEST_RUNS)
            ]
            self._looked_at_day = time.monotonic()
        counts = await count_by_status(database, UNCOMPLETED, at_most=COUNTED_AT_MOST)
        oldest = await database.fetchrow(SELECT_OLDEST_WAITING)
        quarantined = await database.fetchrow(COUNT_QUARANTINED, COUNTED_AT_MOST)
        files = await self._look_at_files(database, now)
        workers = await database.fetch(SELECT_WORKERS, COUNTED_AT_MOST, WORKERS_LISTED)
        return Figures(
            at=now,
            states={state: count.emails for state, count in counts.items()},
            quarantined=Quarantined(**(quarantined or {"all": 0, "signed": 0})),
            files=files,
            completed_today=self._completed.total(),
            oldest_waiting=(
                OldestWaiting(oldest["id"], now - oldest["received_at"]) if oldest else None
            ),
            hour=self._rates(now, HOUR, parts=60),
            day=self._rates(now, DAY, parts=96),
            workers=[Worker(**row) for row in workers],
            failures=self._failures,
            longest_runs=self._longest_runs,
        )

    @staticmethod
    async def _look_at_files(database: Database, now: datetime) -> Files:
        pending = await count_files(database, [AttachmentState.PENDING], at_most=COUNTED_AT_MOST)
        ended = [AttachmentState.FAILED, AttachmentState.FLAGGED]
        today = await count_files(database, ended, since=now - DAY, at_most=COUNTED_AT_MOST)
        return Files(
            pending=pending[AttachmentState.PENDING].files,
            lag=await find_lag(database),
            failed_today=today[AttachmentState.FAILED].files,
            flagged_today=today[AttachmentState.FLAGGED].files,
        )

    def _rates(self, now: datetime, span: timedelta, parts: int) -> Rates:
        return Rates(
            self._accepted.per_minute(now, span, parts),
            self._completed.per_minute(now, span, parts),
        )
