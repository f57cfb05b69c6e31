"""What surrounds one run of a handler: which attempt it is, how long it may take, how to tell
operators how far it is."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import httpx2
import structlog

from app.errors import MailroomError
from app.models.fit import fit_text

T = TypeVar("T")

# Operators read it in one line.
LONGEST_PROGRESS = 200

logger = structlog.get_logger("handler")


class InEventLoopError(MailroomError):
    """An async handler asked to wait in a way that would block every handler of its process."""


class Context:
    """The surroundings of one run. Made in the task that the handler runs in; a handler in a thread
    may use all of it, too.

    Args:
        attempt: which one of the email this is; 1 is the first.
        seconds: what the run may take.
        tell: takes what `progress` says, in the event loop.
        client: makes the HTTP client of all handlers of the process, or gives it again.
        is_dry_run: see the attribute.
    """

    def __init__(
        self,
        *,
        email_id: UUID,
        attempt: int,
        seconds: float,
        tell: Callable[[str], None],
        client: Callable[[], httpx2.AsyncClient],
        is_dry_run: bool = False,
    ) -> None:
        self.attempt = attempt
        """Which attempt this is: 1 is the first."""
        self.is_dry_run = is_dry_run
        """Whether somebody only tries the handler, by `mailroom handler run --dry-run`: it should
        change nothing elsewhere."""
        self._email_id = email_id
        self._ends_at = time.monotonic() + seconds
        self._tell = tell
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._task = asyncio.current_task()
        self._awaited: set[concurrent.futures.Future[Any]] = set()
        self._is_over = False

    @property
    def seconds_left(self) -> float:
        """How long the handler may still run before it is cancelled; 0 at the least."""
        return max(0.0, self._ends_at - time.monotonic())

    @property
    def deadline(self) -> datetime:
        """When it is cancelled, in UTC."""
        return datetime.now(UTC) + timedelta(seconds=self._ends_at - time.monotonic())

    @property
    def log(self) -> Any:
        """A logger of structlog whose lines carry the email's id and the attempt."""
        return logger.bind(email_id=str(self._email_id), attempt=self.attempt)

    @property
    def http(self) -> httpx2.AsyncClient:
        """A client of httpx2, shared by the handlers of this process: do not close it. It calls
        public hosts by https, and others where MAILROOM_OUTBOUND_INTERNAL_HOSTS names them."""
        return self._client()

    @property
    def is_cancelled(self) -> bool:
        """Whether the handler has to end now: its time is over, its worker stops, or the email is
        another worker's. A handler in a thread has to look at this; an async one gets
        `CancelledError` where it awaits."""
        return self._task is not None and self._task.cancelling() > 0

    def progress(self, text: str) -> None:
        """Tell operators how far this run is, in `mailroom show` and the API.

        The latest text of an attempt is kept, cut to 200 characters. It costs a write of a second's
        latest text at the most, so say it as often as you like; and it is readable by whoever reads
        the email's story, so name ids in it and no passwords.
        """
        line = " ".join(fit_text(str(text)).split())[:LONGEST_PROGRESS]
        if not line:
            return
        if threading.get_ident() == self._loop_thread:
            self._tell(line)
        else:
            self._loop.call_soon_threadsafe(self._tell, line)

    def run(self, awaitable: Coroutine[Any, Any, T]) -> T:
        """Have something awaited in the event loop, and wait for its result in this thread: for
        handlers that are no async functions.

        Raises:
            concurrent.futures.CancelledError: the handler is cancelled, and has to end.
            InEventLoopError: the handler is async, and can await it.
            Exception: what the awaitable raised.
        """
        if threading.get_ident() == self._loop_thread:
            awaitable.close()
            raise InEventLoopError(
                "context.run() is for handlers that run in a thread: write `await` in its place"
            )
        future = asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        self._awaited.add(future)
        if self._is_over:
            future.cancel()
        try:
            return future.result()
        finally:
            self._awaited.discard(future)

    def cancel_awaited(self) -> None:
        """Cancel what a thread waits for by `run`, or will, since its handler was cancelled."""
        # Set before the look at what there is: the thread adds to that before it looks at this.
        self._is_over = True
        for future in list(self._awaited):
            future.cancel()
