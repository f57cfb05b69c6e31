"""What a handler tells of its progress stands in its email's story, one entry an attempt."""

import asyncio
import threading
from typing import Any

import attrs
import pytest
from one_email import claim, process
from support import WAIT_SECONDS, make_settings
from test_processing import LEASE, Pool, errors_of, make_claimer, read, store

from app.handlers.context import Context
from app.jobs import progress as progress_module
from app.jobs.progress import Note, Notes, Told
from app.jobs.story import tell_story


async def test_the_last_text_of_an_attempt_is_kept_with_the_email(pool: Pool) -> None:
    async def handle(email: Any, context: Context) -> None:
        for number in range(1_000):
            context.progress(f"line {number} of 1000")
        if context.attempt == 1:
            raise ConnectionError("the CRM is away")

    email_id = await store(pool)
    claimer = make_claimer(pool, handle, min_backoff_seconds=0.001, max_backoff_seconds=0.001)
    await process(claimer, email_id)
    await pool.execute("UPDATE incoming_emails SET next_attempt_at = NULL")
    await process(claimer, email_id)
    assert errors_of(await read(pool, email_id)) == [
        (1, "progress: line 999 of 1000"),
        (1, "ConnectionError: the CRM is away"),
        (2, "progress: line 999 of 1000"),
    ]
    story = await tell_story(pool, email_id, make_settings())
    assert story is not None
    assert "attempt 2: progress: line 999 of 1000" in [event.what for event in story.events]


async def test_progress_is_there_while_the_handler_runs_and_the_next_replaces_it(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "PAUSE_SECONDS", 0.0)
    first_seen, second_seen = threading.Event(), threading.Event()

    def handle(email: Any, context: Context) -> None:
        context.progress("reads the files")
        assert first_seen.wait(60)
        context.progress("opens the case")
        assert second_seen.wait(60)

    email_id = await store(pool)
    running = asyncio.create_task(process(make_claimer(pool, handle), email_id))
    for text, seen in (("reads the files", first_seen), ("opens the case", second_seen)):
        told = [(1, f"progress: {text}")]
        async with asyncio.timeout(WAIT_SECONDS):
            while errors_of(await read(pool, email_id)) != told:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        seen.set()
    await running
    assert (await read(pool, email_id))["processing_status"] == "completed"


async def test_a_lost_claim_tells_nothing(pool: Pool) -> None:
    async def handle(email: Any, context: Context) -> None:
        # Another worker took the email over meanwhile.
        await pool.execute("UPDATE incoming_emails SET started_at = now() + interval '1 hour'")
        context.progress("goes on all the same")

    email_id = await store(pool)
    await process(make_claimer(pool, handle), email_id)
    assert errors_of(await read(pool, email_id)) == []


@pytest.mark.parametrize("lost_comes", [0, 1])
async def test_of_two_texts_of_an_email_at_once_that_counts_whose_claim_stands(
    pool: Pool, lost_comes: int
) -> None:
    email_id = await store(pool)
    made = await claim(pool, email_id, lease=LEASE, worker="a worker")
    assert isinstance(made, tuple)
    lost = attrs.evolve(made[0], started_at=made[0].started_at - LEASE)
    texts = [Note(made[0], "stands")]
    texts.insert(lost_comes, Note(lost, "lost"))
    notes = Notes(pool)
    told = await asyncio.gather(*map(notes.store, texts))
    await notes.close()
    assert told == [Told.WRITTEN if one.text == "stands" else Told.NOT_WRITTEN for one in texts]
    assert errors_of(await read(pool, email_id)) == [(1, "progress: stands")]


async def test_a_locked_email_holds_up_no_other(pool: Pool) -> None:
    claims = []
    for email_id in (await store(pool), await store(pool)):
        made = await claim(pool, email_id, lease=LEASE, worker="a worker")
        assert isinstance(made, tuple)
        claims.append(made[0])
    locked, free = claims
    notes = Notes(pool)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM incoming_emails WHERE id = $1 FOR UPDATE", locked.email_id
        )
        told = await asyncio.gather(*(notes.store(Note(one, "tells")) for one in claims))
    await notes.close()
    assert told == [Told.NOT_WRITTEN, Told.WRITTEN]
    assert errors_of(await read(pool, locked.email_id)) == []
    assert errors_of(await read(pool, free.email_id)) == [(1, "progress: tells")]
