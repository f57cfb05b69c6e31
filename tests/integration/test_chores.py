"""Chores: one process at a time, whatever becomes of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest
from structlog.testing import capture_logs
from support import WAIT_SECONDS

from app.errors import MailroomError
from app.jobs import chore_rows
from app.jobs.chore_runner import Chores
from app.jobs.chores import Chore, ChoreContext, ChoreLostError, ChoreRunningError

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Work: TypeAlias = Callable[[ChoreContext], Awaitable[str | None]]

ROUNDS = 20


def process(pool: Pool, work: Work, *, every: float = 3_600, lease: float = 60.0) -> Chores:
    """What does the chore `count` in one of several processes."""
    chore = Chore("count", every_seconds=every, run=work)
    return Chores([chore], pool=pool, leases=pool, lease_seconds=lease)


async def row(pool: Pool) -> Any:
    return await pool.fetchrow("SELECT * FROM chores")


async def is_due(pool: Pool) -> None:
    await pool.execute("UPDATE chores SET next_run_at = now()")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - of others' tasks
            await asyncio.sleep(0.01)


class Hanging:
    """A chore that goes on until it is let go."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.was_cancelled = False

    async def __call__(self, context: ChoreContext) -> str:
        self.has_begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "done"


@pytest.fixture
async def hanging(pool: Pool) -> AsyncIterator[tuple[Chores, Hanging]]:
    """A process that is in the midst of the chore."""
    work = Hanging()
    first = process(pool, work)
    await first.begin_due()
    await work.has_begun.wait()
    yield first, work
    work.may_end.set()
    await first.stop(WAIT_SECONDS)


async def test_a_chore_is_done_and_then_not_due_for_a_while(pool: Pool) -> None:
    async def work(context: ChoreContext) -> str:
        await context.note("half of it")
        assert (await row(pool))["last_note"] == "half of it"
        return "all of it"

    chores = process(pool, work)
    assert await chores.run_once() == 1
    assert await chores.run_once() == 0
    ended = await row(pool)
    assert (ended["last_note"], ended["last_error"], ended["failures"]) == ("all of it", None, 0)
    assert (ended["token"], ended["lease_expires_at"], ended["running_by"]) == (None, None, None)
    assert ended["last_started_at"] < ended["last_ended_at"] == ended["last_ok_at"]
    assert ended["next_run_at"] - ended["last_ended_at"] == timedelta(hours=1)


async def test_several_processes_never_do_it_at_once(pool: Pool) -> None:
    at_once, most, times = 0, 0, 0

    async def work(context: ChoreContext) -> None:
        nonlocal at_once, most, times
        at_once, times = at_once + 1, times + 1
        most = max(most, at_once)
        await context.pool.execute("SELECT pg_sleep(0.01)")
        at_once -= 1

    async def go_on(chores: Chores) -> None:
        while times < ROUNDS:
            await chores.run_once()

    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(*(go_on(process(pool, work, every=0)) for _ in range(4)))
    assert (most, times >= ROUNDS) == (1, True)


async def test_what_a_killed_process_had_is_taken_over_when_its_lease_is_over(pool: Pool) -> None:
    done = asyncio.Event()

    async def work(context: ChoreContext) -> None:
        done.set()

    chores = process(pool, work)
    await chore_rows.enlist(pool, {"count": timedelta(hours=1)})
    (dead,) = await chore_rows.take(pool, ["count"], lease=timedelta(minutes=1), by="dead:1")
    assert await chores.run_once() == 0
    await pool.execute("UPDATE chores SET lease_expires_at = now()")
    await chores.begin_due()
    await done.wait()
    assert not await chore_rows.end(pool, dead, pause=timedelta(0), error=None, text="a zombie's")
    await chores.stop(WAIT_SECONDS)
    after = await row(pool)
    assert (after["last_note"], after["failures"], after["last_error"]) == (None, 0, None)


async def test_a_vanished_process_is_told_of(pool: Pool, hanging: tuple[Chores, Hanging]) -> None:
    await pool.execute("UPDATE chores SET lease_expires_at = now()")
    await chore_rows.take(pool, ["count"], lease=timedelta(minutes=1), by="next:1")
    taken = await row(pool)
    assert (taken["failures"], taken["last_error"]) == (1, "its process vanished")


async def test_what_raises_is_told_once_and_done_again_after_growing_pauses(pool: Pool) -> None:
    errors: list[Exception | None] = [ValueError("x@example.com"), MailroomError("mend it"), None]

    async def work(context: ChoreContext) -> None:
        if error := errors.pop(0):
            raise error

    chores = process(pool, work)
    pauses, told = [], []
    with capture_logs() as logs:
        for _ in range(3):
            assert await chores.run_once() == 1
            now = await row(pool)
            pauses.append(now["next_run_at"] - now["last_ended_at"])
            told.append((now["last_error"], now["failures"]))
            await is_due(pool)
    assert told == [("ValueError", 1), ("mend it", 2), (None, 0)]
    assert pauses == [timedelta(seconds=5), timedelta(seconds=10), timedelta(hours=1)]
    assert [line["event"] for line in logs] == ["chore_failed", "chore_resumed"]


async def test_who_lost_it_is_cancelled_and_records_nothing(
    pool: Pool, hanging: tuple[Chores, Hanging]
) -> None:
    first, work = hanging
    await first.extend()
    assert not work.was_cancelled
    await pool.execute("UPDATE chores SET token = gen_random_uuid(), last_note = 'of the next one'")
    with capture_logs() as logs:
        await first.extend()
        await first.stop(WAIT_SECONDS)
    after = await row(pool)
    assert work.was_cancelled
    assert (after["last_note"], after["token"] is None) == ("of the next one", False)
    assert [line["event"] for line in logs] == ["chore_lost"]


async def test_none_outlives_its_lease_where_the_database_is_away(pool: Pool) -> None:
    work = Hanging()
    chores = process(pool, work, lease=0.2)
    (run,) = await chores.begin_due()
    # Nothing extends it.
    async with asyncio.timeout(WAIT_SECONDS):
        while not run.done():
            await chores.fence()
            await asyncio.sleep(0.01)
    assert work.was_cancelled
    assert (await row(pool))["token"] is not None


async def test_a_lease_is_kept_for_as_long_as_it_takes(pool: Pool) -> None:
    async def work(context: ChoreContext) -> None:
        before = (await row(pool))["lease_expires_at"]
        async with asyncio.timeout(WAIT_SECONDS):
            while (await row(pool))["lease_expires_at"] == before:  # noqa: ASYNC110 - of a row
                await asyncio.sleep(0.01)

    chores = process(pool, work, lease=60.0)
    chores._extend_every_seconds = 0.05
    running = asyncio.create_task(chores.run())
    async with asyncio.timeout(WAIT_SECONDS):
        while not (ended := await row(pool)) or not ended["last_ok_at"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})


async def test_a_stop_lets_it_end_in_time(pool: Pool) -> None:
    async def work(context: ChoreContext) -> str:
        begun.set()
        await context.stopping.wait()
        return "as far as it came"

    begun = asyncio.Event()
    chores = process(pool, work)
    await chores.begin_due()
    await begun.wait()
    await chores.stop(WAIT_SECONDS)
    assert (await row(pool))["last_note"] == "as far as it came"
    await is_due(pool)
    assert await chores.run_once() == 0


async def test_a_stop_gives_back_what_does_not_end(
    pool: Pool, hanging: tuple[Chores, Hanging]
) -> None:
    first, work = hanging
    await first.stop(0.0)
    assert work.was_cancelled
    after = await row(pool)
    assert (after["token"], after["running_by"], after["failures"]) == (None, None, 0)
    second = Hanging()
    second.may_end.set()
    assert await process(pool, second).run_once() == 1


async def test_one_that_is_asked_for_is_done_at_once_but_not_beside_another(pool: Pool) -> None:
    work = Hanging()
    work.may_end.set()
    assert await process(pool, work).run_once() == 1
    assert await process(pool, work).run_now("count") == "done"
    work.may_end.clear()
    asked = asyncio.create_task(process(pool, work).run_now("count"))
    work.has_begun.clear()
    await work.has_begun.wait()
    with pytest.raises(ChoreRunningError, match=r"count is being done by .+:\d+ now"):
        await process(pool, work).run_now("count")
    asked.cancel()
    await asyncio.wait({asked})
    assert work.was_cancelled
    assert (await row(pool))["token"] is None


async def test_who_asked_for_it_is_told_why_it_failed(pool: Pool) -> None:
    async def fail(context: ChoreContext) -> None:
        raise MailroomError("mend it")

    async def lose(context: ChoreContext) -> None:
        await pool.execute("UPDATE chores SET token = gen_random_uuid()")
        await context.note("half of it")

    with pytest.raises(MailroomError, match="mend it"):
        await process(pool, fail).run_now("count")
    with pytest.raises(ChoreLostError):
        await process(pool, lose).run_now("count")


async def test_one_that_is_set_to_be_done_more_often_does_not_wait_for_the_former_time(
    pool: Pool,
) -> None:
    work = Hanging()
    work.may_end.set()
    await process(pool, work, every=86_400).run_once()
    assert await process(pool, work, every=0).run_once() == 1
