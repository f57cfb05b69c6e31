"""The archivist: fetches the files of emails that are due, and has their bytes kept.

Several processes do so beside each other. What one holds when it is killed falls due again with its
lease; its downloads go with it, and what it had stored is found there by the next one.
"""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.attachments import removing, transitions
from app.attachments.fetcher import Fetched, NotFetched, Wanted
from app.attachments.reasons import SKIPPING, Reason
from app.attachments.store import AttachmentStore, StoreError
from app.attachments.transitions import TRIES_WAITED_FOR, ClaimedFile
from app.models.email_attachment import AttachmentState
from app.pauses import GrowingPause

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
EXTENSIONS_PER_LEASE = 4
# What lasts so long counts no longer among those that are fetched at once: a few slow files must
# not keep all others waiting. There may be so many times more of them.
SLOW_SECONDS = 5.0
SLOW_PER_PLACE = 4
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 600.0
# Nothing is fetched that could not be stored.
LONGEST_ROOM_PAUSE_SECONDS = 120.0
# A host may ask for days; then its files would wait for days after it is back.
LONGEST_REST_SECONDS = 900.0
REST_SECONDS = 30.0

_HOST = re.compile(r"[a-zA-Z]+://([^/?#]*)")


class Fetches(Protocol):
    """What downloads a file: `app.attachments.fetcher.Fetcher`."""

    async def fetch(self, wanted: Wanted, folder: Path) -> Fetched | NotFetched:
        """Download it into the folder, or say why not."""
        ...


@attrs.frozen
class Limits:
    """How much is fetched, and how often it is tried."""

    concurrency: int
    lease: timedelta
    max_tries: int
    max_email_bytes: int


class Archivist:
    """Works in the event loop it is made in.

    Args:
        pool: connections to the database.
        fetcher: downloads.
        store: keeps.
        folder: for downloads; this process's own.
        ended: called with an email when it waits for one of its files no longer.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        fetcher: Fetches,
        store: AttachmentStore,
        folder: Path,
        limits: Limits,
        ended: Callable[[UUID], Awaitable[object]],
    ) -> None:
        self._pool = pool
        self._fetcher = fetcher
        self._store = store
        self._folder = folder
        self._limits = limits
        self._ended = ended
        self._held: dict[asyncio.Task[None], ClaimedFile] = {}
        self._slow: set[asyncio.Task[None]] = set()
        self._ending: set[UUID] = set()
        """Tokens of those whose end is being recorded: they are seen through."""
        self._resting: dict[str, float] = {}
        self._room_pause = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_ROOM_PAUSE_SECONDS)
        self._rests_until = 0.0
        self._changed = asyncio.Event()

    def ring(self) -> None:
        """There are files to be fetched. To be called in its event loop."""
        self._changed.set()

    async def run(self) -> None:
        """Fetch for ever.

        Raises:
            Exception: the database is away; call it again after a pause.
        """
        while True:
            self._changed.clear()
            wanted = self._free()
            begun = await self._begin(wanted) if wanted else []
            if not begun or len(begun) < wanted or not self._free():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._changed.wait()

    async def run_once(self) -> int:
        """Fetch what is due now, as much as there is room for. Returns how many files it was."""
        begun = await self._begin(self._free())
        if begun:
            await asyncio.wait(begun)
        return len(begun)

    async def extend(self) -> None:
        """Keep what is being fetched; let go of what others have by now.

        Raises:
            Exception: the database is away.
        """
        held = dict(self._held)
        if not held:
            return
        standing = await transitions.extend(self._pool, held.values(), lease=self._limits.lease)
        for task, file in held.items():
            if file.token not in standing and file.token not in self._ending:
                task.cancel()

    async def close(self) -> None:
        """Give back at once what is being fetched."""
        held = dict(self._held)
        for task, file in held.items():
            if file.token not in self._ending:
                task.cancel()
        if held:
            await asyncio.wait(held)

    def _free(self) -> int:
        """How many more may be begun."""
        if time.monotonic() < self._rests_until:
            return 0
        places, slow = self._limits.concurrency, len(self._slow)
        return max(0, min(places - (len(self._held) - slow), places * SLOW_PER_PLACE - slow))

    async def _begin(self, limit: int) -> list["asyncio.Task[None]"]:
        now = time.monotonic()
        self._resting = {host: until for host, until in self._resting.items() if until > now}
        files = await transitions.claim(
            self._pool, limit=limit, lease=self._limits.lease, resting=list(self._resting)
        )
        return [self._start(file) for file in files]

    def _start(self, file: ClaimedFile) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._settle(file), name=f"fetch-{file.id}")
        self._held[task] = file
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._is_slow, task)

        def is_done(_: object) -> None:
            slow.cancel()
            del self._held[task]
            self._ending.discard(file.token)
            self._slow.discard(task)
            self._changed.set()

        task.add_done_callback(is_done)
        return task

    def _is_slow(self, task: "asyncio.Task[None]") -> None:
        self._slow.add(task)
        self._changed.set()

    async def _settle(self, file: ClaimedFile) -> None:
        """See to one file, whatever happens."""
        with structlog.contextvars.bound_contextvars(email_id=str(file.email_id)):
            try:
                if await self._archive(file):
                    await self._ended(file.email_id)
            except asyncio.CancelledError:
                # This process ends, or has lost the file.
                with contextlib.suppress(Exception):
                    await transitions.postpone(self._pool, file, delay=timedelta(0), counts=False)
            except Exception as error:
                # The lease runs out, and the file is tried again.
                log.error("attachment_not_settled", error=type(error).__name__, exc_info=error)

    async def _archive(self, file: ClaimedFile) -> bool:
        """Returns whether its email waits for it no longer."""
        if file.tries > self._limits.max_tries:
            return await self._give_up(file, Reason.WORKER_VANISHED)
        if file.bytes_of_email + (file.claimed_size or 0) > self._limits.max_email_bytes:
            return await self._give_up(file, Reason.TOO_LARGE_TOGETHER)
        got = await self._fetch(file)
        if isinstance(got, NotFetched):
            return await self._heed(file, got)
        try:
            return await self._keep(file, got)
        except StoreError as error:
            return await self._heed_store(file, got.size, str(error))
        finally:
            await asyncio.to_thread(got.path.unlink, missing_ok=True)

    async def _heed_store(self, file: ClaimedFile, size: int, said: str) -> bool:
        """Find out whether the store takes nothing now, or not this file; the latter must not keep
        all others waiting, again and again."""
        try:
            await self._store.try_out(size)
        except StoreError:
            return await self._wait(file, Reason.STORE_AWAY, said)
        return await self._heed(file, NotFetched(Reason.STORE_REFUSED, said, is_final=False))

    async def _wait(self, file: ClaimedFile, reason: Reason, detail: str) -> bool:
        """Fetch nothing for a while, since there is no place for it. The file is not to blame, so
        it may be tried for as long as that lasts."""
        log.warning("attachment_has_no_place", reason=str(reason), error=detail)
        now = time.monotonic()
        if now >= self._rests_until:
            # Once for all that failed together.
            self._rests_until = now + self._room_pause.next_seconds()
        delay = timedelta(seconds=self._rests_until - now)
        await transitions.postpone(
            self._pool, file, delay=delay, reason=reason, detail=detail, counts=False
        )
        return False

    async def _fetch(self, file: ClaimedFile) -> Fetched | NotFetched:
        wanted = Wanted(
            url=file.url,
            content_type=file.claimed_content_type,
            size=file.claimed_size,
            ticket_id=file.ticket_id,
            age_seconds=file.age.total_seconds(),
        )
        try:
            return await self._fetcher.fetch(wanted, self._folder)
        except Exception as error:
            log.error("attachment_fetch_failed", exc_info=error)
            return NotFetched(
                reason=Reason.UNEXPECTED,
                detail=type(error).__name__,
                is_final=False,
                retry_after_seconds=None,
                host=None,
            )

    async def _keep(self, file: ClaimedFile, got: Fetched) -> bool:
        most = self._limits.max_email_bytes
        if not await transitions.intend(
            self._pool, file, sha256=got.sha256, size=got.size, most_bytes=most
        ):
            return await self._give_up(file, Reason.TOO_LARGE_TOGETHER)
        await self._store.put(got.path, got.sha256)
        self._room_pause.reset()
        self._ending.add(file.token)
        stood = await transitions.keep(
            self._pool, file, sha256=got.sha256, size=got.size, content_type=got.content_type
        )
        if not stood:
            # It was erased meanwhile; or another process has it, and needs the bytes.
            await removing.forget(self._pool, got.sha256)
        return stood

    async def _heed(self, file: ClaimedFile, why: NotFetched) -> bool:
        """Give the file up, or try it again later."""
        if why.reason is Reason.NO_ROOM:
            return await self._wait(file, why.reason, why.detail)
        if why.is_final or (file.tries >= self._limits.max_tries and not why.reason.is_wait):
            return await self._give_up(file, why.reason, why.detail)
        delay = _pause_after(file.tries)
        if why.retry_after_seconds is not None:
            delay = timedelta(seconds=min(why.retry_after_seconds, LONGEST_REST_SECONDS))
        if why.reason is Reason.BUSY:
            # Wherever its URL leads, it begins at this host.
            self._rest(_host_of(file.url), why.retry_after_seconds)
        await transitions.postpone(
            self._pool,
            file,
            delay=delay,
            reason=why.reason,
            detail=why.detail,
            counts=not why.reason.is_wait,
        )
        return file.tries >= TRIES_WAITED_FOR and not why.reason.is_wait

    async def _give_up(self, file: ClaimedFile, reason: Reason, detail: str | None = None) -> bool:
        state = AttachmentState.SKIPPED if reason in SKIPPING else AttachmentState.FAILED
        if reason is Reason.FLAGGED:
            state = AttachmentState.FLAGGED
        log.info("attachment_not_kept", state=str(state), reason=str(reason))
        self._ending.add(file.token)
        return await transitions.give_up(self._pool, file, state, reason=reason, detail=detail)

    def _rest(self, host: str, seconds: float | None) -> None:
        rest = min(REST_SECONDS if seconds is None else seconds, LONGEST_REST_SECONDS)
        until = time.monotonic() + rest
        self._resting[host] = max(until, self._resting.get(host, 0.0))
        log.info("host_rests", seconds=round(rest, 1))


def _host_of(url: str) -> str:
    """The host of a URL as the claim compares it."""
    match = _HOST.match(url)
    return match[1] if match else ""


def _pause_after(tries: int) -> timedelta:
    """A pause that doubles with each try, and is never quite the same: what failed together is not
    tried again together."""
    seconds = min(FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 16), LONGEST_PAUSE_SECONDS)
    return timedelta(seconds=seconds * random.uniform(0.75, 1.25))  # noqa: S311
