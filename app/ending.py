"""That this process ends when it is told to, whatever its threads do.

A thread cannot be cancelled, Python waits for each at its exit, and the main thread may hang where
no handler of a signal gets its turn: in a library's import, or in a lock that a process which was
killed has taken along. So a thread that does nothing else hears of SIGTERM, and of the end of the
parent, and ends the process by force when its time is over.
"""

import contextlib
import functools
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import get_start_method, parent_process
from types import FrameType
from typing import NoReturn, Self, TypeAlias

import attrs
import structlog

log = structlog.get_logger(__name__)

# Dramatiq stops by either.
STOPS = frozenset({signal.SIGTERM, signal.SIGHUP})
POLL_SECONDS = 1.0
LAST_WORDS_SECONDS = 4.0
RELEASE_SECONDS = 2.0
# Where even this thread does not get its turn, the kernel ends the process.
KERNEL_MARGIN_SECONDS = 2.0
FORCED_EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: start it again

SignalHandler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


@attrs.frozen
class Parent:
    """The process by whose end this one ends, too."""

    told: int
    """Its pid."""
    pid: int
    """What `os.getppid` tells as long as it lives."""
    sentinel: int | None = None
    """A descriptor that can be read from when it has ended, at the latest when all others have that
    it started so."""

    @classmethod
    def of_this_process(cls) -> Self | None:
        """By what multiprocessing knows; None where it did not start this process."""
        parent = parent_process()
        if parent is None or parent.pid is None:
            return None
        # The fork server starts what its process asks for, and ends with that.
        is_served = get_start_method(allow_none=True) == "forkserver"
        return cls(parent.pid, os.getppid() if is_served else parent.pid, parent.sentinel)

    def has_ended(self) -> bool:
        """Whether it has."""
        if os.getppid() != self.pid:
            return True
        return self.sentinel is not None and bool(select.select([self.sentinel], [], [], 0)[0])


class Ending:
    """Ends this process in time.

    Args:
        seconds: from SIGTERM, or the end of the parent, to the end of this process.
        parent: None where the end of no other process matters.
        release: gives up what others wait for; done last, and only as long as it is quick.
    """

    def __init__(
        self, seconds: float, *, parent: Parent | None, release: Callable[[], object] = lambda: None
    ) -> None:
        self._seconds = seconds
        self._parent = parent
        self._release = release
        self._last_words: Callable[[], object] | None = None
        self._ends_at: float | None = None
        self._status = FORCED_EXIT_STATUS
        self.orderly_status = 0
        """What this process ends with where it had its last words, or stopped in order."""
        # The interpreter writes to it at the signal, whatever the main thread does.
        self._signals, self._wakeup = socket.socketpair()

    def watch(self) -> None:
        """Begin; to be called in the main thread."""
        self._wakeup.setblocking(False)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="ending", daemon=True).start()

    def say_last(self, last_words: Callable[[], object]) -> None:
        """Have this done, bounded in time, before the process is ended by force."""
        self._last_words = last_words

    def end_within(self, seconds: float, status: int) -> None:
        """End by force after some seconds, if nothing has ended this process by then. There is no
        more to be said."""
        self._last_words = None
        self._status = status
        self._arm(seconds)

    def _arm(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        if self._ends_at is None or ends_at < self._ends_at:
            self._ends_at = ends_at
            limit = seconds + LAST_WORDS_SECONDS + RELEASE_SECONDS + KERNEL_MARGIN_SECONDS
            # Nothing of ours handles SIGALRM, which ends a process then.
            signal.setitimer(signal.ITIMER_REAL, limit)
            # It may be sleeping for longer than that.
            self._wakeup.send(b"\0")

    def _watch(self) -> None:
        while True:
            if self._ends_at is not None and time.monotonic() >= self._ends_at:
                self._end()
            if self._parent is not None and self._parent.has_ended():
                gone, self._parent = self._parent.told, None
                self._arm(self._seconds)
                os.kill(os.getpid(), signal.SIGTERM)
                # What it writes to may have been the parent's.
                _try(functools.partial(log.warning, "parent_gone", parent=gone), 1.0)
            left = POLL_SECONDS if self._ends_at is None else self._ends_at - time.monotonic()
            heard, _, _ = select.select([self._signals], [], [], max(0.0, min(left, POLL_SECONDS)))
            if heard and STOPS.intersection(self._signals.recv(4096)):
                self._arm(self._seconds)

    def _end(self) -> None:
        """End it now. Whatever is still done may hang as well, so no thread is waited for long."""
        tell = log.critical if self._status else log.warning
        _try(lambda: tell("ended_by_force", status=self._status), 1.0)
        if self._last_words is not None and _try(self._last_words, LAST_WORDS_SECONDS):
            self._status = self.orderly_status
        _try(self._release, RELEASE_SECONDS)
        os._exit(self._status)


def _try(work: Callable[[], object], seconds: float) -> bool:
    """Do some work in a thread, which is left alone if it takes longer. Returns whether it was
    done."""
    went_well: list[bool] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            work()
            went_well.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(went_well)


def only_once(heed: SignalHandler) -> SignalHandler:
    """Dramatiq takes a second SIGTERM as "end without finishing". But who stops a whole group of
    processes, as systemd does, sends one to each, and Dramatiq's master passes on its own."""

    def heed_once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        if callable(heed):
            heed(number, frame)

    return heed_once


def exit_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Take a signal so, as long as nothing is in hand."""
    raise SystemExit(0)
