"""The chore that keeps the index of words: what is new every few seconds; and what was there before
the index, after an upgrade, a little at a time."""

import asyncio
import contextlib
import time
from datetime import timedelta

from app.jobs.chores import Chore, ChoreContext
from app.search.entries import Progress, index_batch

NAME = "index-words"
EVERY_SECONDS = 5.0
# The rest after each batch, by how long that took: emails that are processed go before. So a flood
# may leave the index behind, but not by more than that before it goes faster.
RESTS_PER_BATCH = 9.0
LONGEST_REST_SECONDS = 5.0
BEHIND_AT_MOST = timedelta(minutes=1)


async def index_words(context: ChoreContext) -> str | None:
    """Write all entries that are missing. Returns what was done; None where nothing was."""
    written = 0
    while not context.stopping.is_set():
        began = time.monotonic()
        async with context.pool.acquire() as connection:
            progress = await index_batch(connection, older=True, waits=True)
        written += progress.written
        if progress.older_than is not None:
            day = progress.older_than.date().isoformat()
            await context.note(f"emails stored before {day} are still to be indexed")
        elif progress.is_current:
            break
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_rest(progress, time.monotonic() - began)):
                await context.stopping.wait()
    return f"{written:,} emails indexed" if written else None


def word_index_chore() -> Chore:
    """The chore."""
    return Chore(NAME, EVERY_SECONDS, index_words)


def _rest(progress: Progress, took: float) -> float:
    """How long to rest after a batch, in seconds, by how long that took."""
    if progress.behind > BEHIND_AT_MOST:
        return took
    return min(took * RESTS_PER_BATCH, LONGEST_REST_SECONDS)
