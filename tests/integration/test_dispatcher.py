"""The Dispatcher between the messages and its commit: it is stopped, or its machine is gone."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

import app.jobs.dispatcher as dispatcher_module
from app.jobs import transitions
from app.jobs.dispatcher import Dispatcher

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


async def test_emails_are_not_locked_for_longer_than_a_broker_may_take(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "MOST_IDLE_SECONDS", 0.5)
    await pool.execute("INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com')")
    sent: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()
    is_over = threading.Event()

    def send(email_ids: Sequence[UUID]) -> None:
        sent.get_loop().call_soon_threadsafe(sent.set_result, email_ids[0])
        is_over.wait()

    dispatching = asyncio.create_task(Dispatcher(pool, send=send, depth=10).dispatch_batch())
    email_id = await sent
    try:
        # The worker that got the message.
        claimed = await transitions.claim(
            pool, email_id, lease=timedelta(minutes=1), worker="a worker"
        )
    finally:
        is_over.set()
    assert claimed is not None
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await dispatching
    state = await pool.fetchval("SELECT processing_status FROM incoming_emails")
    assert state == "processing"
