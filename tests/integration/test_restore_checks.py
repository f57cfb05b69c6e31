"""What `mailroom doctor --after-restore` finds wrong, each by itself; tests/e2e/test_backup.py runs
the command."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from support import make_settings
from test_attachment_upkeep import Pool, add, add_email, on_disk, sha

from app.attachments.store import AttachmentStore
from app.cli import restore_checks
from app.cli.restore_checks import (
    ASKED_AT_ONCE,
    contents_check,
    moment_check,
    sequences_check,
)
from app.cli.zendesk_checks import NotWellError

NEWEST = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
ACCOUNT = {
    "zendesk_subdomain": "example",
    "zendesk_email": "agent@example.com",
    "zendesk_token": "token",
}


class Restored:
    """The engine of a process whose DATABASE_URL is the test's."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ensure_running(self) -> None:
        """It runs."""

    async def get_new_connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(self._url)


@pytest.fixture(autouse=True)
def restored(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_checks, "DB", Restored(database_url))


@pytest.fixture
def store(tmp_path: Path) -> AttachmentStore:
    return AttachmentStore.from_url((tmp_path / "store").as_uri())


async def test_a_sequence_that_is_behind_is_named_with_the_command_that_mends_it(
    pool: Pool,
) -> None:
    settings = make_settings()
    assert "ahead of their tables" in await sequences_check(settings)
    await pool.execute(
        "INSERT INTO piccolo_user (id, username, password, email) VALUES (7, 'erika', '', '')"
    )
    with pytest.raises(NotWellError, match="sequences are behind") as told:
        await sequences_check(settings)
    (mend,) = re.findall(r"SELECT setval\('.*?', 7\)", str(told.value))
    await pool.execute(mend)
    assert "ahead of their tables" in await sequences_check(settings)
    assert await pool.fetchval("SELECT nextval(pg_get_serial_sequence('piccolo_user', 'id'))") == 8


async def test_contents_that_the_store_lacks_are_counted(
    pool: Pool, store: AttachmentStore, tmp_path: Path
) -> None:
    settings = make_settings(attachment_store=store.url)
    await add(pool, store, tmp_path, b"stays", b"goes", b"goes, too", None)
    assert "has the 3 contents kept last" in await contents_check(settings)
    for content in (b"goes", b"goes, too"):
        on_disk(store, sha(content)).unlink()
    with pytest.raises(NotWellError, match="lacks 2 of the 3 contents") as told:
        await contents_check(settings)
    assert "mailroom attachments verify --fetch" in str(told.value)


async def test_a_store_is_asked_for_several_contents_at_once_and_not_for_all(
    pool: Pool, store: AttachmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that takes 100 ms an answer would take longer than the check may."""
    await add(pool, store, tmp_path, *(str(n).encode() for n in range(2 * ASKED_AT_ONCE)))
    asking, most = 0, 0

    async def size(self: AttachmentStore, sha256: str) -> int:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0.01)
        asking -= 1
        return 1

    monkeypatch.setattr(AttachmentStore, "size", size)
    await contents_check(make_settings(attachment_store=store.url))
    assert most == ASKED_AT_ONCE


async def test_without_a_token_nobody_finds_what_came_since(pool: Pool) -> None:
    with pytest.raises(NotWellError, match="there are no emails, and nobody can ask Zendesk"):
        await moment_check(make_settings())
    await add_email(pool, 0, received_at=NEWEST)
    with pytest.raises(NotWellError, match="MAILROOM_ZENDESK_TOKEN") as told:
        await moment_check(make_settings())
    assert "the newest email is of 2026-11-26T09:30:00+00:00" in str(told.value)


async def test_tickets_that_were_never_looked_through_are_from_the_newest_email_on(
    pool: Pool,
) -> None:
    settings = make_settings(**ACCOUNT)
    with pytest.raises(NotWellError, match="mailroom backfill --since TIME"):
        await moment_check(settings)
    await add_email(pool, 0, received_at=NEWEST)
    with pytest.raises(NotWellError, match=r"mailroom backfill --since 2026-11-26T09:30:00\+00:00"):
        await moment_check(settings)
    await pool.execute(
        "INSERT INTO zendesk_cursors (name, seen_until) VALUES ('tickets', $1)", NEWEST
    )
    assert "from 2026-11-26T09:30:00+00:00: `mailroom gaps`" in await moment_check(settings)
