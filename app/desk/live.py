"""Live pages: browsers are told that something changed, and fetch what they show.

One connection of each web process listens, however many browsers watch, and only while one does.
What is told holds nothing of an email; what changed is read by the page itself, by its own rights.
Where nothing is heard, behind a pooler that lends connections by the transaction, say, pages are
told now and then all the same.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import structlog
from litestar import Request, get
from litestar.exceptions import NotAuthorizedException, ServiceUnavailableException
from litestar.response import Stream

from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.desk.addresses import LIVE_PATH
from app.desk.return_paths import sign_in_address
from app.desk.sign_in import signed_in
from app.http.bodies import RETRY_AFTER_SECONDS
from app.http.known_hosts import only_known_hosts
from app.i18n.texts import gettext as _
from app.jobs.changes import CHANNELS
from app.pauses import GrowingPause

log = structlog.get_logger(__name__)

MOST_STREAMS = 100
"""Of one web process. Who comes then asks every few seconds instead."""

# What changes meanwhile is told together, and is at least as old as what pages read then.
DEBOUNCE_SECONDS = 1.0
# At the latest: proxies close a connection over which nothing comes.
TOLD_EVERY_SECONDS = 10.0
SESSION_CHECKED_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0

CHANGED = b"event: changed\ndata:\n\n"
SIGNED_OUT = b"event: signed-out\ndata:\n\n"


class Live:
    """The streams of one web process, and the connection that listens for them. Works in the event
    loop it is made in."""

    def __init__(self) -> None:
        self._streams: set[asyncio.Event] = set()
        self._changed = asyncio.Event()
        self._is_watched = asyncio.Event()
        self._is_closed = False
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._tell())]

    @property
    def has_room(self) -> bool:
        """Whether one more stream may begin."""
        return not self._is_closed and len(self._streams) < MOST_STREAMS

    @contextlib.contextmanager
    def stream(self) -> Iterator[asyncio.Event]:
        """An event that is set when something changed, as long as the block lasts."""
        event = asyncio.Event()
        self._streams.add(event)
        self._is_watched.set()
        try:
            yield event
        finally:
            self._streams.discard(event)
            if not self._streams:
                self._is_watched.clear()

    @property
    def is_closed(self) -> bool:
        """Whether streams have to end."""
        return self._is_closed

    def close(self) -> None:
        """End all streams, since the process does."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        for event in self._streams:
            event.set()

    async def _tell(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TOLD_EVERY_SECONDS):
                    await self._changed.wait()
            await asyncio.sleep(DEBOUNCE_SECONDS)
            self._changed.clear()
            for event in self._streams:
                event.set()

    async def _listen(self) -> None:
        pause = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            await self._is_watched.wait()
            try:
                await self._listen_while_watched()
                pause.reset()
            except CANNOT_ASK as error:
                log.info("live_pages_deaf", error=type(error).__name__)
                await asyncio.sleep(pause.next_seconds())

    async def _listen_while_watched(self) -> None:
        connection = await DB.get_new_connection()
        try:
            for channel in CHANNELS:
                await connection.add_listener(channel, self._heard)
            # What was told before.
            self._changed.set()
            while self._is_watched.is_set():
                await asyncio.sleep(TOLD_EVERY_SECONDS)
                await connection.execute("SELECT")
        finally:
            connection.terminate()

    def _heard(self, *_: object) -> None:
        self._changed.set()


@get(LIVE_PATH, guards=[only_known_hosts], include_in_schema=False)
async def live(request: Request[Any, Any, Any]) -> Stream:
    """Server-sent events: `changed` when a page may show something else than before, and
    `signed-out`, after which it ends.
    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    if await signed_in(request.scope) is None:
        raise NotAuthorizedException(
            _("sign in at %(address)s to see this", address=sign_in_address())
        )
    hub: Live = request.app.state.live
    if not hub.has_room:
        raise ServiceUnavailableException(
            _("too many pages are live: ask now and then instead"),
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        )
    return Stream(
        _events(request, hub),
        media_type="text/event-stream",
        # Nginx would keep it until there is more of it.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(request: Request[Any, Any, Any], hub: Live) -> AsyncIterator[bytes]:
    checked_at = time.monotonic()
    with hub.stream() as event:
        yield b"retry: 5000\n\n"
        while not hub.is_closed:
            await event.wait()
            event.clear()
            if time.monotonic() > checked_at + SESSION_CHECKED_SECONDS:
                if await signed_in(request.scope) is None:
                    yield SIGNED_OUT
                    return
                checked_at = time.monotonic()
            if not hub.is_closed:
                yield CHANGED
