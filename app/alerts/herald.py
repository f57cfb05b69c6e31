"""The herald: tells of each alarm once when it begins and once when it is over, whoever is told.

What is to be told is a row before it is told, so neither a restart nor a receiver that is away
loses it. Of two heralds one tells it, by the row's token. A process that is killed between a
message and its record tells it again after the lease, with the same id.
"""

import asyncio
import time
from collections import defaultdict
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.alerts.alarms import Database
from app.alerts.messages import Message
from app.alerts.sending import send
from app.errors import MailroomError
from app.models.alarm import NoticeState
from app.setting_groups.alerts import AlertTarget
from app.settings import Settings
from app.telemetry.metrics import ALERTS

log = structlog.get_logger(__name__)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# Longer than one message takes at most, 60 seconds for a mail.
LEASE = timedelta(seconds=120)
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
AT_ONCE = 20
KEPT = timedelta(days=90)
FORGOTTEN_AT_ONCE = 1_000

CLOSE = """
UPDATE alarms SET closed_at = now()
WHERE closed_at IS NULL AND ended_at <= now() - $1::interval
"""
# Who is told newly hears of what is wrong now, too.
NOTE_BEGAN = """
INSERT INTO alarm_notices (id, alarm, moment, target)
SELECT gen_random_uuid(), alarms.id, 'began', target
FROM alarms, unnest($1::text[]) AS target
WHERE closed_at IS NULL AND ended_at IS NULL
ON CONFLICT (alarm, moment, target) DO NOTHING
"""
DROP_BEGAN = """
UPDATE alarm_notices AS notice SET state = 'dropped', token = NULL
FROM alarms
WHERE alarms.id = notice.alarm AND closed_at IS NOT NULL
    AND moment = 'began' AND state = 'pending' AND next_attempt_at <= now()
"""
NOTE_ENDED = """
INSERT INTO alarm_notices (id, alarm, moment, target)
SELECT gen_random_uuid(), notice.alarm, 'ended', notice.target
FROM alarm_notices AS notice JOIN alarms ON alarms.id = notice.alarm
WHERE closed_at IS NOT NULL AND moment = 'began' AND state <> 'pending'
ON CONFLICT (alarm, moment, target) DO NOTHING
"""
CLAIM = """
WITH due AS (
    SELECT notice.id FROM alarm_notices AS notice
    WHERE state = 'pending' AND next_attempt_at <= now() AND target = ANY($1::text[])
    ORDER BY next_attempt_at, notice.id
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
UPDATE alarm_notices AS notice
SET token = gen_random_uuid(), tries = tries + 1, next_attempt_at = now() + $3::interval
FROM due, alarms
WHERE notice.id = due.id AND alarms.id = notice.alarm
RETURNING notice.id, notice.token, notice.tries, notice.target, notice.moment,
    alarms.id AS alarm_id, kind, key, text, mend, since,
    CASE notice.moment WHEN 'ended' THEN ended_at END AS ended_at
"""
SETTLE = """
UPDATE alarm_notices
SET state = $3, error = $4, token = NULL,
    told_at = CASE WHEN $4::text IS NULL THEN now() END,
    next_attempt_at = now() + $5::interval
WHERE id = $1 AND token = $2
"""
FORGET = """
WITH old AS (
    SELECT id FROM alarms WHERE closed_at < now() - $1::interval ORDER BY id LIMIT $2
), notices AS (
    DELETE FROM alarm_notices USING old WHERE alarm = old.id
)
DELETE FROM alarms USING old WHERE alarms.id = old.id
"""


@attrs.frozen
class _Claimed:
    id: UUID
    token: UUID
    tries: int
    target: str
    message: Message


class Herald:
    """Tells what is to be told."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        self._targets = {target.key: target for target in settings.alert_url}
        self._settle = timedelta(seconds=settings.alert_settle_seconds)

    async def run_once(self) -> int:
        """Tell what is due. Returns how many messages arrived.

        Raises:
            Exception: the database is away.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(CLOSE, self._settle)
            await connection.execute(NOTE_BEGAN, list(self._targets))
            await connection.execute(DROP_BEGAN)
            await connection.execute(NOTE_ENDED)
            await connection.execute(FORGET, KEPT, FORGOTTEN_AT_ONCE)
        by_target = defaultdict(list)
        for claimed in await self._claim(self._pool):
            by_target[claimed.target].append(claimed)
        # One receiver that is slow keeps no other waiting.
        told = await asyncio.gather(
            *(self._tell_all(self._targets[key], each) for key, each in by_target.items())
        )
        return sum(told)

    async def _claim(self, database: Database) -> list[_Claimed]:
        rows = await database.fetch(CLAIM, list(self._targets), AT_ONCE, LEASE)
        return [
            _Claimed(
                row["id"],
                row["token"],
                row["tries"],
                row["target"],
                Message(**{field.name: row[field.name] for field in attrs.fields(Message)}),
            )
            for row in rows
        ]

    async def _tell_all(self, target: AlertTarget, each: list[_Claimed]) -> int:
        told = 0
        begun = time.monotonic()
        for claimed in each:
            if time.monotonic() - begun > LEASE.total_seconds() / 2:
                # The others fall due again with their lease.
                break
            error = await self._tell(target, claimed.message)
            told += error is None
            pause = min(FIRST_PAUSE * 2 ** min(claimed.tries - 1, 16), LONGEST_PAUSE)
            await self._pool.execute(
                SETTLE,
                claimed.id,
                claimed.token,
                NoticeState.TOLD if error is None else NoticeState.PENDING,
                error,
                pause,
            )
            if error is not None:
                break
        return told

    async def _tell(self, target: AlertTarget, message: Message) -> str | None:
        """Returns why it did not arrive."""
        try:
            await send(self._settings, target, message)
        except MailroomError as error:
            ALERTS.labels(target.way, "failed").inc()
            # What a mail server answers may hold an address.
            log.warning("alert_not_sent", way=target.way.value, error=type(error).__name__)
            return str(error)
        ALERTS.labels(target.way, "told").inc()
        log.info("alert_sent", way=target.way.value, moment=message.moment, kind=message.kind)
        return None
