"""Running the parts of Mailroom as child processes, and starting them again when they die."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

import attrs

from app.pauses import GrowingPause

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_AFTER_SECONDS = 60.0
STOP_MARGIN_SECONDS = 15.0
PR_SET_PDEATHSIG = 1  # prctl(2)

# A child that ends so cannot be started with these settings, and has said why.
CANNOT_START_EXIT_STATUS = 2


@attrs.frozen
class Part:
    """A child process to be kept running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = attrs.field(factory=dict)
    file_descriptors: tuple[int, ...] = ()


class _Running:
    def __init__(self, part: Part) -> None:
        self.part = part
        self.is_first = True
        self.start_at: float | None = None
        self._pause = GrowingPause(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._start()

    def see_to(self) -> None:
        """Start it again when its pause is over."""
        if self.start_at is not None and time.monotonic() >= self.start_at:
            self.is_first = False
            self._start()

    def plan_start(self) -> float:
        """Have it started again after a pause, which grows while it dies soon after its start."""
        if time.monotonic() - self._started_at > STEADY_AFTER_SECONDS:
            self._pause.reset()
        pause = self._pause.next_seconds()
        self.start_at = time.monotonic() + pause
        return pause

    def _start(self) -> None:
        self.start_at = None
        self._started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.part.command,
            env={**os.environ, **self.part.environment},
            stdin=subprocess.DEVNULL,
            pass_fds=self.part.file_descriptors,
            # Ctrl-C reaches this process alone, which then stops the children in order.
            process_group=0,
            preexec_fn=_ends_with(os.getpid()),
        )


class Supervisor:
    """Keeps parts running until it is told to stop by SIGTERM or SIGINT.

    Args:
        parts: what to run.
        stop_seconds: time that the parts are given to finish what they have in hand.
        tell: logs an error, by an event's name and its values.
        see_to: what else has to be kept running; called every second.
        on_stopping: called once, before the parts are told to stop.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        stop_seconds: float,
        tell: Callable[..., object],
        see_to: Callable[[], None] = lambda: None,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts = parts
        self._tell = tell
        self._see_to = see_to
        self._on_stopping = on_stopping
        self._stop_seconds = stop_seconds
        self._stopping = threading.Event()

    def run(self, *, on_started: Callable[[], None] = lambda: None) -> int:
        """Run the parts.

        Returns:
            An exit status: 0 after an orderly stop, that of a part that cannot start in the
            first place, or 1 where a part did not end in time and was killed.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        running = [_Running(part) for part in self._parts]
        on_started()
        status = 0
        try:
            while not self._stopping.wait(1):
                self._see_to()
                for child in running:
                    status = status or self._look_after(child)
        finally:
            self._on_stopping()
            was_orderly = self._end(running)
        return status or (0 if was_orderly else 1)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _look_after(self, child: _Running) -> int:
        """Returns an exit status if there is no going on without this part."""
        ended = child.process.poll()
        if ended is None:
            return 0
        if ended == CANNOT_START_EXIT_STATUS and child.is_first:
            self._stopping.set()
            return ended
        if child.start_at is None:
            pause = child.plan_start()
            self._tell("part_ended", part=child.part.name, status=ended, again_in_seconds=pause)
        try:
            child.see_to()
        except (OSError, subprocess.SubprocessError) as error:
            # No process or memory is to be had: the other parts go on, and this one later.
            pause = child.plan_start()
            self._tell(
                "part_not_started",
                part=child.part.name,
                error=type(error).__name__,
                again_in_seconds=pause,
            )
        return 0

    def _end(self, running: Sequence[_Running]) -> bool:
        """Stop what runs. Returns whether none had to be killed."""
        deadline = time.monotonic() + self._stop_seconds + STOP_MARGIN_SECONDS
        was_orderly = True
        for child in running:
            if child.process.poll() is None:
                child.process.terminate()
        for child in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            if child.process.poll() is None:
                self._tell("part_killed", part=child.part.name)
                was_orderly = False
                # With its descendants, which would go on without it.
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
        return was_orderly


def mailroom_command(*arguments: str) -> list[str]:
    """The command line of this very Mailroom."""
    return [sys.executable, "-m", "app.cli.main", *arguments]


def _ends_with(parent: int) -> Callable[[], None]:
    """What a child does before its program starts, so that it does not outlive its parent: Linux
    sends it SIGTERM when the parent is killed."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def see_to_it() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                # It was killed before we asked for the signal.
                os._exit(0)

    return see_to_it
