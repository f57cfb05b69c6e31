"""The transitions of `sync_status` against a model of them: jobs that end, operators, workers that
claim, vanish and wake, and erasure in any order, each step on a real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.jobs.transitions import ending, erasing, operators
from app.jobs.transitions.common import Claim
from app.jobs.transitions.ending import Completion
from app.sync import cancelling, claims, transitions
from app.sync.asking import DeliveredEnds
from app.sync.breaker import MAKE
from app.sync.claims import Claimed, Source
from app.sync.transitions import End, Outcome, Result

RECEIVER = "model"
LEASE = timedelta(hours=1)
STARTED = datetime(2026, 11, 26, tzinfo=UTC)
EMAILS = 2
OPERATIONS = (
    *("end", "end", "end", "end unwanted", "retry", "retry", "retry", "claim", "claim", "claim"),
    *("expire", "extend", "erase", "fall due", "synced", "failed", "later", "given back"),
    "cancel",
)
INSERT = """
INSERT INTO incoming_emails (from_email, processing_status, started_at)
VALUES ('erika@example.com', 'processing', $1) RETURNING id
"""
READ = """
SELECT id, sync_status AS status, sync_version AS version, sync_retry_count AS tries,
    sync_token AS token, sync_next_attempt_at IS NOT NULL AS has_next, sync_error AS error,
    synced_at IS NOT NULL AS was_synced
FROM incoming_emails
"""


@attrs.define
class Email:
    """What the model knows of an email."""

    in_job: bool = True
    is_erased: bool = False
    status: str = "not_applicable"
    version: int = 0
    tries: int = 0
    token: UUID | None = None
    is_expired: bool = False
    is_due: bool = True
    error: str | None = None
    was_synced: bool = False

    @property
    def can_be_claimed(self) -> bool:
        is_free = self.token is None or self.is_expired
        return self.status == "pending" and not self.in_job and self.is_due and is_free


class World:
    """PostgreSQL beside its model."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self.pool = pool
        self.emails: dict[UUID, Email] = {}
        self.claims: list[Claimed] = []
        """All that were ever made: of workers alive, paused and vanished."""

    async def run(self, steps: list[tuple[str, int]]) -> None:
        await self.pool.execute("DELETE FROM incoming_emails")
        await self.pool.execute("DELETE FROM sync_events")
        await self.pool.execute(MAKE, RECEIVER)
        for _ in range(EMAILS):
            self.emails[await self.pool.fetchval(INSERT, STARTED)] = Email()
        for operation, number in steps:
            email_id = [*self.emails][number % EMAILS]
            await self.step(operation, email_id, number)
            await self.compare(operation)

    async def step(self, operation: str, email_id: UUID, number: int) -> None:
        email = self.emails[email_id]
        match operation:
            case "end" | "end unwanted":
                await self.end(email_id, email, is_wanted=operation == "end")
            case "retry":
                may = not email.in_job and not email.is_erased
                assert await operators.retry(self.pool, email_id, by="erika", force=True) == may
                email.in_job = email.in_job or may
                await self.pool.execute(
                    "UPDATE incoming_emails SET processing_status = 'processing', started_at = $2"
                    " WHERE id = $1 AND processing_status = 'queued'",
                    email_id,
                    STARTED,
                )
            case "claim":
                await self.claim()
            case "expire":
                await self.pool.execute(
                    "UPDATE incoming_emails SET sync_lease_expires_at = $2"
                    " WHERE id = $1 AND sync_token IS NOT NULL",
                    email_id,
                    STARTED,
                )
                email.is_expired = email.token is not None
            case "extend":
                standing = await transitions.extend(self.pool, self.claims, lease=LEASE)
                live = {email.token for email in self.emails.values() if email.token is not None}
                assert standing == dict.fromkeys(live, True)
                for one in self.emails.values():
                    one.is_expired = False
            case "fall due":
                await self.pool.execute(
                    "UPDATE incoming_emails SET sync_next_attempt_at = $1"
                    " WHERE sync_next_attempt_at IS NOT NULL",
                    STARTED,
                )
                for one in self.emails.values():
                    one.is_due = True
            case "cancel":
                await self.cancel()
            # It is the end of an email's story: seldom.
            case "erase" if number > 18:
                async with self.pool.acquire() as connection, connection.transaction():
                    await erasing.empty(connection, [email_id], told="erased", whole=True)
                email.in_job, email.is_erased, email.error = False, True, None
                if email.status == "pending":
                    email.status = "not_applicable"
                email.token, email.is_expired = None, False
            case "erase":
                pass
            case _ if self.claims:
                # Mostly the one that stands.
                held = [one for one in self.claims if one.token == email.token and number % 4]
                among = held or self.claims
                await self.record(operation, among[-1 - number % len(among)])

    async def end(self, email_id: UUID, email: Email, *, is_wanted: bool) -> None:
        claim = Claim(email_id, STARTED, 0, 0)
        delivered = DeliveredEnds(completed=is_wanted)
        ends = await ending.complete(
            self.pool, [Completion(claim, "{}", None)], delivered=delivered
        )
        assert ends == [ending.End.RECORDED if email.in_job else ending.End.LOST]
        if not email.in_job:
            return
        email.in_job = False
        email.version += 1
        if is_wanted:
            email.status, email.tries, email.error, email.is_due = "pending", 0, None, True
        elif email.status == "pending":
            email.status, email.tries = "not_applicable", max(email.tries, 1)

    async def cancel(self) -> None:
        expected = [
            email
            for email in self.emails.values()
            if email.status == "pending"
            and not email.in_job
            and (email.token is None or email.is_expired)
        ]
        steps = [step async for step in cancelling.cancel(self.pool, applies=True, by="erika")]
        assert sum(step.found for step in steps) == len(expected)
        assert sum(step.cancelled for step in steps) == len(expected)
        for email in expected:
            email.status = "not_applicable"
            email.tries = max(email.tries, int(email.token is not None))

    async def claim(self) -> None:
        claimed = await claims.claim_emails(
            self.pool,
            limit=10,
            lease=LEASE,
            receiver=RECEIVER,
            most_body_bytes=10,
            most_data_bytes=10,
        )
        expected = {i: email for i, email in self.emails.items() if email.can_be_claimed}
        assert {one.id for one in claimed} == expected.keys()
        for one in claimed:
            email = self.emails[one.id]
            email.tries += email.token is not None
            email.token, email.is_expired = one.token, False
            assert (one.version, one.failed_tries) == (email.version, email.tries)
        self.claims += claimed

    async def record(self, kind: str, claimed: Claimed) -> None:
        result = {
            "synced": Result(claimed, Outcome.SYNCED),
            "failed": Result(claimed, Outcome.FAILED, "404", counts=True),
            "later": Result(claimed, Outcome.LATER, "500", LEASE, counts=True),
            "given back": Result(claimed, Outcome.LATER),
        }[kind]
        [end] = await transitions.record(self.pool, Source.EMAILS, [result], worker="w")
        email = self.emails[claimed.id]
        if email.token != claimed.token:
            assert end is End.LOST
            return
        assert end is End.RECORDED
        email.token, email.is_expired = None, False
        email.was_synced = email.was_synced or kind == "synced"
        if email.status != "pending" or email.version != claimed.version:
            return
        email.tries += result.counts
        email.status = result.outcome.value
        if kind != "given back":
            email.error = result.error
        if kind == "later":
            email.is_due = False

    async def compare(self, operation: str) -> None:
        for row in await self.pool.fetch(READ):
            email = self.emails[row["id"]]
            found: dict[str, Any] = dict(row)
            del found["id"]
            expected = {name: getattr(email, name) for name in found if name != "has_next"}
            # What is pending has a next attempt, and nothing else has.
            expected["has_next"] = email.status == "pending"
            assert found == expected, operation


@pytest.mark.long
def test_the_transitions_of_delivery_agree_with_their_model(
    database_url: str, request: pytest.FixtureRequest
) -> None:
    async def connect() -> "asyncpg.Pool[asyncpg.Record]":
        return await asyncpg.create_pool(database_url, min_size=0, max_size=2, command_timeout=120)

    with asyncio.Runner() as runner:
        pool = runner.run(connect())

        @settings(
            max_examples=request.config.option.histories // 2,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.lists(
                st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 20)), min_size=40, max_size=60
            )
        )
        def check(steps: list[tuple[str, int]]) -> None:
            runner.run(World(pool).run(steps))

        check()
        pool.terminate()
