"""The transitions against a model of them: Dispatchers, workers, zombies, duplicates, Rescuers and
operators in any order, each step on a real PostgreSQL and compared with what the model says."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import attrs
import one_email
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.jobs.transitions import claiming, dispatching, ending, keeping, operators
from app.jobs.transitions.claiming import Refusal
from app.jobs.transitions.common import Claim
from app.jobs.transitions.dispatching import Queued
from app.jobs.transitions.ending import Completion, End

T = TypeVar("T")

# Whether a claim may be of a suspect, and of an email that another worker's lease ran out of.
MAY = st.tuples(st.booleans(), st.booleans())

STEPS = 50
MOST_EMAILS = 6
LEASE = timedelta(hours=1)
LOST_AFTER = timedelta(hours=1)
A_DAY = timedelta(days=1)

INSERT = """
INSERT INTO incoming_emails (processing_status, received_at)
VALUES ('received', now() - $1 * interval '1 minute') RETURNING id, received_at
"""
READ = """
SELECT id, processing_status AS status, started_at AS token, retry_count, claims, lost_claims,
    claim_token, queued_at,
    COALESCE(next_attempt_at, now()) <= now() AS is_due,
    COALESCE(lease_expires_at < now(), processing_status = 'processing') AS is_abandoned,
    jsonb_array_length(attempt_errors) AS errors, extracted_data, processing_error,
    completed_at IS NOT NULL AS is_ended, next_attempt_at, received_at
FROM incoming_emails
"""


@attrs.define
class Email:
    """What the model knows of an email."""

    received_at: datetime
    status: str = "received"
    token: datetime | None = None
    retry_count: int = 0
    claims: int = 0
    lost_claims: int = 0
    claim_token: UUID | None = None
    queued_at: datetime | None = None
    next_attempt_at: datetime | None = None
    is_due: bool = True
    is_abandoned: bool = False
    """Whether it is in work under a lease that ran out."""
    errors: int = 0
    is_loss_told: bool = False
    """Whether the last that is told of it is that its message was lost."""
    result: str | None = None
    error: str | None = None

    @property
    def is_suspect(self) -> bool:
        return self.lost_claims > 0 or self.is_abandoned

    def can_be_claimed(self, *, takes_over: bool) -> bool:
        waits = self.status in ("received", "queued") and self.is_due
        return waits or (self.is_abandoned and takes_over)

    def tell(self) -> None:
        """One more entry among the attempt errors."""
        self.errors += 1
        self.is_loss_told = False

    def wait(self, *, is_due: bool) -> None:
        """Into `queued`, without a message."""
        self.status = "queued"
        self.queued_at = None
        self.is_due = is_due
        self.is_abandoned = False


class World(RuleBasedStateMachine):
    """PostgreSQL beside its model."""

    def __init__(
        self, runner: asyncio.Runner, pool: "asyncpg.Pool[asyncpg.Record]", tally: list[int]
    ) -> None:
        super().__init__()
        self._runner = runner
        self.pool = pool
        self.emails: dict[UUID, Email] = {}
        self.claims: list[Claim] = []
        """All that were ever made: of workers alive, paused and vanished."""
        self.tokens: dict[tuple[UUID, datetime], UUID] = {}
        self.messages: list[UUID] = []
        """What the broker holds."""
        self.dispatches: list[list[Queued]] = []
        """Those of Dispatchers that have committed and not sent all yet."""
        self.erased: list[UUID] = []
        self._run(pool.execute("DELETE FROM incoming_emails"))
        tally[0] += 1

    def teardown(self) -> None:
        self._drain()

    # What happens outside.

    @initialize(all_minutes_ago=st.lists(st.integers(0, 10), min_size=1, max_size=3))
    def receive_the_first(self, all_minutes_ago: list[int]) -> None:
        for minutes_ago in all_minutes_ago:
            self.receive(minutes_ago)

    @precondition(lambda self: len(self.emails) < MOST_EMAILS)
    @rule(minutes_ago=st.integers(0, 10))
    def receive(self, minutes_ago: int) -> None:
        row = self._run(self.pool.fetchrow(INSERT, minutes_ago))
        self.emails[row["id"]] = Email(row["received_at"])

    @precondition(lambda self: len(self.messages) > 1)
    @rule()
    def lose_all_messages(self) -> None:
        self.messages.clear()

    @precondition(lambda self: len(self.emails) == MOST_EMAILS)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        email_id = self._draw_email(data)
        self._run(self.pool.execute("DELETE FROM incoming_emails WHERE id = $1", email_id))
        del self.emails[email_id]
        self.erased.append(email_id)

    @precondition(lambda self: self.emails)
    @rule(data=st.data())
    def let_time_pass(self, data: st.DataObject) -> None:
        """For one email: its lease runs out, its retry falls due, its message grows old."""
        email_id = self._draw_email(data)
        row = self._run(
            self.pool.fetchrow(
                "UPDATE incoming_emails SET lease_expires_at = lease_expires_at - $2::interval,"
                " next_attempt_at = next_attempt_at - $2::interval,"
                " queued_at = queued_at - $2::interval WHERE id = $1"
                " RETURNING queued_at, next_attempt_at",
                email_id,
                2 * A_DAY,
            )
        )
        email = self.emails[email_id]
        email.queued_at = row["queued_at"]
        email.next_attempt_at = row["next_attempt_at"]
        email.is_due = True
        email.is_abandoned = email.status == "processing"

    # Dispatchers.

    @precondition(lambda self: len(self.dispatches) < 2)
    @rule(limit=st.integers(1, 4), depth=st.integers(1, 6), odd_to_fresh=st.booleans())
    def dispatch(self, limit: int, depth: int, odd_to_fresh: bool) -> None:
        """A Dispatcher takes emails and commits. It has not sent their messages yet."""
        queued = self._run(
            dispatching.queue(self.pool, limit=limit, depth=depth, odd_to_fresh=odd_to_fresh)
        )
        in_broker = sum(
            email.status == "queued" and email.queued_at is not None
            for email in self.emails.values()
        )
        room = max(0, min(limit, depth - in_broker))
        fresh = self._first(room, lambda email: email.status == "received")
        share = min(len(fresh), (room + odd_to_fresh) // 2)
        again = self._first(room - share, self._is_sent_again, by_due_time=True)
        fresh = fresh[: room - len(again)]
        assert [one.email_id for one in queued if one.is_fresh] == fresh
        assert [one.email_id for one in queued if not one.is_fresh] == again
        for one in queued:
            email = self.emails[one.email_id]
            email.status, email.queued_at = "queued", one.queued_at
        self.dispatches.append(queued)

    @precondition(lambda self: self.dispatches)
    @rule(data=st.data(), lives=st.booleans(), is_last_unsure=st.booleans())
    def send(self, data: st.DataObject, lives: bool, is_last_unsure: bool) -> None:
        """It sends some of the messages. Then it dies, or gives back what it has not sent; of the
        last it may be wrong, since the broker's answer was lost."""
        queued = data.draw(st.sampled_from(self.dispatches))
        self.dispatches.remove(queued)
        sent = data.draw(st.integers(0, len(queued)))
        self.messages.extend(one.email_id for one in queued[:sent])
        if not lives:
            return
        unsent = queued[max(0, sent - is_last_unsure) :]
        expected = {
            one.email_id
            for one in unsent
            if (email := self.emails.get(one.email_id)) is not None
            and (email.status, email.queued_at) == ("queued", one.queued_at)
        }
        assert set(self._run(dispatching.unqueue(self.pool, unsent))) == expected
        for one in unsent:
            if one.email_id in expected:
                email = self.emails[one.email_id]
                email.status = "received" if one.is_fresh else "queued"
                email.queued_at = None

    # Workers.

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), is_delivered_again=st.booleans(), may=MAY)
    def deliver(
        self, data: st.DataObject, is_delivered_again: bool, may: tuple[bool, bool]
    ) -> None:
        """A worker gets a message and claims. The broker may keep the message as well."""
        email_id = data.draw(st.sampled_from(self.messages))
        if not is_delivered_again:
            self.messages.remove(email_id)
        self._claim(email_id, uuid4(), may)

    @precondition(lambda self: self.emails)
    @rule(data=st.data(), may=MAY)
    def claim_without_a_message(self, data: st.DataObject, may: tuple[bool, bool]) -> None:
        self._claim(self._draw_email(data), uuid4(), may)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), may=MAY)
    def claim_again(self, data: st.DataObject, may: tuple[bool, bool]) -> None:
        """A worker did not get the answer to its claim, and asks again, soon or late."""
        claim, _ = self._draw_claim(data)
        email = self.emails.get(claim.email_id)
        token = self.tokens[claim.email_id, claim.started_at]
        if email is None or (email.status, email.claim_token) != ("processing", token):
            self._claim(claim.email_id, token, may)
            return
        again = self._run(self._ask(claim.email_id, token, may))
        assert isinstance(again, tuple)
        assert again[0].started_at == email.token
        email.is_abandoned = False

    @precondition(lambda self: self.are_there("queued"))
    @rule(data=st.data())
    def postpone(self, data: st.DataObject) -> None:
        email_id = self._draw_email(data, lambda email: email.is_suspect)
        changed = self._run(claiming.postpone_suspect(self.pool, email_id, delay=A_DAY))
        email = self.emails[email_id]
        assert changed == (email.status == "queued" and email.lost_claims > 0)
        if changed:
            email.wait(is_due=False)
            self._learn_next_attempt(email_id)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """A worker records several at once, of which some claims may be lost."""
        claims = data.draw(
            st.lists(st.sampled_from(self.claims), unique_by=lambda claim: claim.email_id)
        )
        claim, _ = self._draw_claim(data)
        claims = [claim, *(other for other in claims if other.email_id != claim.email_id)]
        mine = {one: json.dumps({"token": one.started_at.isoformat()}) for one in claims}
        ends = self._run(
            ending.complete(self.pool, [Completion(one, mine[one], None) for one in claims])
        )
        stood = [self._stands(one) for one in claims]
        assert ends == [End.RECORDED if stands else End.LOST for stands in stood]
        for one, stands in zip(claims, stood, strict=True):
            if stands:
                email = self.emails[one.email_id]
                email.status, email.result, email.error = "completed", mine[one], None
                email.is_abandoned = False

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        claim, stands = self._draw_claim(data)
        mine = f"of {claim.started_at}"
        assert self._run(one_email.fail(self.pool, claim, error=mine)) == stands
        if stands:
            email = self.emails[claim.email_id]
            email.status, email.error = "failed", mine
            email.tell()
            email.is_abandoned = False

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), delay=st.sampled_from([timedelta(0), A_DAY]))
    def retry_later(self, data: st.DataObject, delay: timedelta) -> None:
        claim, stands = self._draw_claim(data)
        changed = self._run(one_email.retry_later(self.pool, claim, error="busy", delay=delay))
        assert changed == stands
        if stands:
            email = self.emails[claim.email_id]
            email.wait(is_due=not delay)
            email.retry_count += 1
            email.tell()
            self._learn_next_attempt(claim.email_id)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        claim, stands = self._draw_claim(data)
        assert self._run(one_email.hand_back(self.pool, claim)) == stands
        if stands:
            email = self.emails[claim.email_id]
            email.wait(is_due=True)
            email.claims -= 1
            email.tell()

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def extend_leases(self, data: st.DataObject) -> None:
        """A worker extends several; those that are still its own stay so."""
        claims = data.draw(st.lists(st.sampled_from(self.claims), min_size=1, unique=True))
        standing = self._run(keeping.extend_leases(self.pool, claims, lease=LEASE))
        expected = [claim for claim in claims if self._stands(claim)]
        assert standing == {(claim.email_id, claim.started_at): True for claim in expected}
        for claim in expected:
            self.emails[claim.email_id].is_abandoned = False

    # Rescuers and operators.

    @precondition(lambda self: self.are_there("processing"))
    @rule(limit=st.integers(1, 4))
    def rescue_expired(self, limit: int) -> None:
        rescued = self._run(keeping.rescue_expired(self.pool, limit=limit))
        assert set(rescued) == set(self._first(limit, lambda email: email.is_abandoned))
        for email_id in rescued:
            email = self.emails[email_id]
            email.wait(is_due=True)
            email.lost_claims += 1
            email.tell()

    @precondition(lambda self: self.are_there("queued"))
    @rule(limit=st.integers(1, 4), is_idle=st.booleans())
    def rescue_unheard(self, limit: int, is_idle: bool) -> None:
        now = self._run(self.pool.fetchval("SELECT now()"))
        latest = max(
            (e.queued_at for e in self.emails.values() if e.status == "processing" and e.queued_at),
            default=None,
        )

        def is_unheard(email: Email) -> bool:
            if email.status != "queued" or email.queued_at is None:
                return False
            is_overtaken = latest is not None and email.queued_at < latest
            return email.queued_at < now - LOST_AFTER and (is_idle or is_overtaken)

        rescued = self._run(
            keeping.rescue_unheard(self.pool, limit=limit, lost_after=LOST_AFTER, is_idle=is_idle)
        )
        assert set(rescued) == set(self._first(limit, is_unheard, by_age_of_message=True))
        for email_id in rescued:
            email = self.emails[email_id]
            email.queued_at = None
            if not email.is_loss_told:
                email.tell()
                email.is_loss_told = True

    @precondition(lambda self: self.are_there("failed", "completed"))
    @rule(data=st.data(), force=st.booleans())
    def retry_by_operator(self, data: st.DataObject, force: bool) -> None:
        email_id = self._draw_email(data, lambda email: email.status in ("failed", "completed"))
        changed = self._run(operators.retry(self.pool, email_id, by="erika", force=force))
        email = self.emails[email_id]
        assert changed == (email.status in (["failed", "completed"] if force else ["failed"]))
        if changed:
            email.wait(is_due=True)
            email.retry_count = email.claims = email.lost_claims = 0
            email.error = None
            email.tell()
            self._learn_next_attempt(email_id)

    @precondition(lambda self: self.are_there("failed"))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        email_id = self._draw_email(data, lambda email: email.status == "failed")
        changed = self._run(operators.settle(self.pool, email_id, by="erika", reason="by phone"))
        email = self.emails[email_id]
        assert changed == (email.status == "failed")
        if changed:
            email.status, email.error = "completed", None
            email.tell()

    # What holds after each step.

    @invariant()
    def agrees_with_the_model(self) -> None:
        rows = {row["id"]: row for row in self._run(self.pool.fetch(READ))}
        assert set(rows) == set(self.emails)
        for email_id, email in self.emails.items():
            row = rows[email_id]
            for name in (
                *("status", "token", "retry_count", "claims", "lost_claims", "claim_token"),
                *("queued_at", "errors"),
            ):
                assert row[name] == getattr(email, name), name
            assert row["is_abandoned"] == email.is_abandoned
            if email.status == "queued":
                assert row["is_due"] == email.is_due
            assert row["extracted_data"] == email.result
            assert row["processing_error"] == email.error
            assert row["is_ended"] == (email.status in ("completed", "failed"))

    @invariant()
    def at_most_one_claim_of_an_email_stands(self) -> None:
        standing = [claim.email_id for claim in self.claims if self._stands(claim)]
        assert len(standing) == len(set(standing))

    # Helpers.

    def _run(self, work: Awaitable[T]) -> T:
        return self._runner.run(_awaited(work))

    def are_there(self, *states: str) -> bool:
        return any(email.status in states for email in self.emails.values())

    def _draw_email(
        self, data: st.DataObject, is_likely: Callable[[Email], bool] = lambda _: True
    ) -> UUID:
        emails = list(self.emails)
        likely = [email_id for email_id in emails if is_likely(self.emails[email_id])]
        return data.draw(_mostly(likely, emails))

    def _draw_claim(self, data: st.DataObject) -> tuple[Claim, bool]:
        standing = [claim for claim in self.claims if self._stands(claim)]
        claim = data.draw(_mostly(standing, self.claims))
        return claim, self._stands(claim)

    def _stands(self, claim: Claim) -> bool:
        email = self.emails.get(claim.email_id)
        return (
            email is not None and email.status == "processing" and email.token == claim.started_at
        )

    @staticmethod
    def _is_sent_again(email: Email) -> bool:
        return email.status == "queued" and email.queued_at is None and email.is_due

    def _first(
        self,
        limit: int,
        belongs: Callable[[Email], bool],
        *,
        by_due_time: bool = False,
        by_age_of_message: bool = False,
    ) -> list[UUID]:
        """The first emails that belong there, in the order of their receipt or as they fell due."""
        found = [email_id for email_id, email in self.emails.items() if belongs(email)]
        if by_due_time:
            found.sort(
                key=lambda email_id: (
                    (due := self.emails[email_id].next_attempt_at) is not None,
                    due or 0,
                    self.emails[email_id].received_at,
                )
            )
        elif by_age_of_message:
            found.sort(
                key=lambda email_id: (
                    self.emails[email_id].queued_at or 0,
                    self.emails[email_id].received_at,
                )
            )
        else:
            found.sort(key=lambda email_id: self.emails[email_id].received_at)
        return found[:limit]

    def _ask(
        self, email_id: UUID, token: UUID, may: tuple[bool, bool]
    ) -> "Awaitable[tuple[Claim, dict[str, Any]] | Refusal]":
        suspects, takes_over = may
        return one_email.claim(
            self.pool,
            email_id,
            lease=LEASE,
            worker="a worker",
            token=token,
            suspects=suspects,
            takes_over=takes_over,
        )

    def _claim(self, email_id: UUID, token: UUID, may: tuple[bool, bool]) -> None:
        suspects, takes_over = may
        claimed = self._run(self._ask(email_id, token, may))
        email = self.emails.get(email_id)
        if email is None or not email.can_be_claimed(takes_over=takes_over):
            assert claimed is Refusal.NO_WORK
            return
        if email.is_suspect and not suspects:
            assert claimed is Refusal.SUSPECT
            return
        assert isinstance(claimed, tuple)
        claim, columns = claimed
        assert columns["id"] == email_id
        assert email.token is None or claim.started_at > email.token
        email.status, email.token, email.claim_token = "processing", claim.started_at, token
        email.claims += 1
        if email.is_abandoned:
            email.lost_claims += 1
            email.tell()
        assert (claim.retry_count, claim.lost_claims) == (email.retry_count, email.lost_claims)
        email.is_abandoned = False
        email.next_attempt_at, email.is_due = None, True
        self.claims.append(claim)
        self.tokens[email_id, claim.started_at] = token

    def _learn_next_attempt(self, email_id: UUID) -> None:
        self.emails[email_id].next_attempt_at = self._run(
            self.pool.fetchval(
                "SELECT next_attempt_at FROM incoming_emails WHERE id = $1", email_id
            )
        )

    def _drain(self) -> None:
        """Whatever happened before: a worker, a Dispatcher and a Rescuer finish every email."""
        self._run(
            self.pool.execute(
                "UPDATE incoming_emails SET lease_expires_at = now() - $1::interval,"
                " next_attempt_at = now() - $1::interval, queued_at = queued_at - $1::interval",
                A_DAY,
            )
        )

        async def drain() -> None:
            await keeping.rescue_expired(self.pool, limit=1_000)
            await keeping.rescue_unheard(
                self.pool, limit=1_000, lost_after=LOST_AFTER, is_idle=True
            )
            for queued in await dispatching.queue(self.pool, limit=1_000, depth=1_000):
                claimed = await one_email.claim(
                    self.pool, queued.email_id, lease=LEASE, worker="last"
                )
                assert isinstance(claimed, tuple)
                assert await one_email.complete(
                    self.pool, claimed[0], extracted_data="{}", cleaned_body=None
                )

        self._run(drain())
        left = self._run(
            self.pool.fetch(
                "SELECT processing_status FROM incoming_emails"
                " WHERE processing_status NOT IN ('completed', 'failed')"
            )
        )
        assert left == []


def _mostly(likely: list[T], every: list[T]) -> st.SearchStrategy[T]:
    """Half of the time one of the likely ones: those that the transition is to change."""
    return st.sampled_from(likely) | st.sampled_from(every) if likely else st.sampled_from(every)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_transitions_agree_with_their_model(
    database_url: str, request: pytest.FixtureRequest
) -> None:
    wanted = request.config.option.histories
    histories = [0]
    with asyncio.Runner() as runner:
        # What waits for a lock for ever fails.
        pool = runner.run(
            _awaited(asyncpg.create_pool(database_url, min_size=0, max_size=4, command_timeout=120))
        )
        run_state_machine_as_test(
            lambda: World(runner, pool, histories),
            settings=settings(
                max_examples=wanted,
                stateful_step_count=STEPS,
                suppress_health_check=list(HealthCheck),
            ),
        )
        pool.terminate()
    assert histories[0] >= wanted
