"""One thread in each worker process that fetches the files of emails, and lets those emails go on
that waited for them.

It has an event loop and connections of its own: a handler that blocks the loop of the actors keeps
no file from coming, and a file that is being hashed keeps no lease from being extended.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from app.attachments.archivist import EXTENSIONS_PER_LEASE, Archivist, Limits
from app.attachments.contents import has_erased, remove_erased
from app.attachments.downloads import Downloads
from app.attachments.fetcher import Fetcher
from app.attachments.store import AttachmentStore, StoreError
from app.database.engine import DB
from app.jobs.chores import Chore, ChoreContext
from app.jobs.duty import without_end
from app.jobs.own_loop import OwnLoopThread
from app.jobs.transitions import dispatching
from app.jobs.transitions.dispatching import Files
from app.settings import Settings

log = structlog.get_logger(__name__)

POOL_SIZE = 3
REMOVE_EVERY_SECONDS = 5.0
END_WAITS_EVERY_SECONDS = 10.0
ENDED_AT_ONCE = 500
STOP_SECONDS = 5.0
DAY_SECONDS = 86_400.0
# Whoever writes has ended long before.
LEFT_AFTER = timedelta(hours=24)


def files_of(settings: Settings) -> Files | None:
    """What a Dispatcher does about files by these settings."""
    if settings.attachments == "off":
        return None
    waits = settings.attachments == "before"
    return Files(
        most=settings.attachment_max_count,
        wait=timedelta(seconds=settings.attachment_wait_seconds) if waits else None,
    )


def leftovers_chore(settings: Settings) -> Chore:
    """Removes what killed processes had begun to write into the store, where it is a folder. What
    they had written whole is known by its hash, and leaves as what was erased does."""

    async def run(context: ChoreContext) -> str | None:
        if settings.attachments == "off":
            return None
        store = await asyncio.to_thread(AttachmentStore.from_url, settings.attachment_store_url)
        count = await asyncio.to_thread(store.remove_leftovers, datetime.now(UTC) - LEFT_AFTER)
        return f"{count} half-written files removed from the store"

    return Chore("attachment-leftovers", DAY_SECONDS, run)


class ArchiveThread(OwnLoopThread):
    """Runs the archivist of this process; where nothing is fetched, what removes erased files."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("archive")
        self._settings = settings
        self._archivist: Archivist | None = None
        self._said = ""

    def ring(self) -> None:
        """There are files to be fetched. May be called from any thread."""
        # Not while this process stops: others fetch them.
        self._call(self._heard)

    def stop(self) -> None:
        """Give back what is being fetched."""
        self._end(STOP_SECONDS)

    def _heard(self) -> None:
        if self._archivist is not None:
            self._archivist.ring()

    async def _keep(self) -> None:
        pool = await DB.make_pool(max_size=POOL_SIZE)
        if self._settings.attachments == "off":
            # What was kept before is erased all the same.
            work = without_end(
                "remove_erased",
                lambda: self._remove_alone(pool),
                every_seconds=REMOVE_EVERY_SECONDS,
            )
        else:
            work = without_end("archive", lambda: self._archive(pool))
        task = asyncio.create_task(work)
        await self._stopping.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_SECONDS / 2)
        pool.terminate()

    async def _remove_alone(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        if await has_erased(pool):
            url = self._settings.attachment_store_url
            await remove_erased(pool, await asyncio.to_thread(AttachmentStore.from_url, url))

    async def _archive(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Open what it needs, and archive until something fails that concerns all files."""
        settings = self._settings
        try:
            store = await asyncio.to_thread(AttachmentStore.from_url, settings.attachment_store_url)
            downloads = await asyncio.to_thread(Downloads, settings.home / "downloads")
        except (StoreError, OSError) as error:
            if str(error) != self._said:
                log.error("attachments_not_fetched", error=str(error))
                self._said = str(error)
            raise
        self._said = ""
        fetcher = Fetcher(settings)
        lease = timedelta(seconds=settings.lease_seconds)
        self._archivist = archivist = Archivist(
            pool,
            fetcher=fetcher,
            store=store,
            folder=downloads.path,
            limits=Limits(
                concurrency=settings.attachment_concurrency,
                lease=lease,
                max_tries=settings.attachment_max_tries,
                max_email_bytes=settings.attachment_max_email_bytes,
            ),
            ended=lambda email_id: _let_go_on(pool, email_id),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for duty in (
                    without_end("fetch", archivist.run),
                    without_end(
                        "extend_files",
                        archivist.extend,
                        every_seconds=settings.lease_seconds / EXTENSIONS_PER_LEASE,
                    ),
                    without_end(
                        "end_waits",
                        lambda: dispatching.end_waits(pool, limit=ENDED_AT_ONCE),
                        every_seconds=END_WAITS_EVERY_SECONDS,
                    ),
                    without_end(
                        "remove_erased",
                        lambda: remove_erased(pool, store),
                        every_seconds=REMOVE_EVERY_SECONDS,
                    ),
                ):
                    group.create_task(duty)
        finally:
            self._archivist = None
            await archivist.close()
            await fetcher.aclose()
            await asyncio.to_thread(downloads.close)


async def _let_go_on(pool: "asyncpg.Pool[asyncpg.Record]", email_id: UUID) -> None:
    await dispatching.end_wait(pool, [email_id])
