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
import structlog

log = structlog.get_logger(__name__)

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
        self.pause = FIRST_PAUSE_SECONDS
        self.start()

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.part.command,
            env={**os.environ, **self.part.environment},
            stdin=subprocess.DEVNULL,
            pass_fds=self.part.file_descriptors,
            # Ctrl-C reaches this process alone, which then stops the children in order.
            process_group=0,
            preexec_fn=_end_with_parent,
        )

    def next_pause(self) -> float:
        """Pauses grow while it dies soon after its start."""
        if time.monotonic() - self.started_at > STEADY_AFTER_SECONDS:
            self.pause = FIRST_PAUSE_SECONDS
        pause, self.pause = self.pause, min(self.pause * 2, LONGEST_PAUSE_SECONDS)
        return pause


class Supervisor:
    """Keeps parts running until it is told to stop by SIGTERM or SIGINT.

    Args:
        parts: what to run.
        stop_seconds: time that the parts are given to finish what they have in hand.
        see_to: what else has to be kept running; called every second.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        stop_seconds: float,
        see_to: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts = parts
        self._see_to = see_to
        self._stop_seconds = stop_seconds
        self._stopping = threading.Event()

    def run(self, *, on_started: Callable[[], None] = lambda: None) -> int:
        """Run the parts.

        Returns:
            An exit status: 0 after an orderly stop, else that of the part that cannot start.
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
                    ended = child.process.poll()
                    if ended == CANNOT_START_EXIT_STATUS:
                        status = ended
                        self._stopping.set()
                    elif ended is not None and not self._stopping.is_set():
                        self._start_again(child, ended)
        finally:
            self._end(running)
        return status

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _start_again(self, child: _Running, ended: int) -> None:
        pause = child.next_pause()
        log.error("part_ended", part=child.part.name, status=ended, again_in_seconds=pause)
        if not self._stopping.wait(pause):
            child.start()

    def _end(self, running: Sequence[_Running]) -> None:
        deadline = time.monotonic() + self._stop_seconds + STOP_MARGIN_SECONDS
        for child in running:
            if child.process.poll() is None:
                child.process.terminate()
        for child in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            if child.process.poll() is None:
                log.error("part_killed", part=child.part.name)
                child.process.kill()
                child.process.wait()


def mailroom_command(*arguments: str) -> list[str]:
    """The command line of this very Mailroom."""
    return [sys.executable, "-m", "app.cli.main", *arguments]


def _end_with_parent() -> None:
    """Linux sends the child SIGTERM when the supervisor is killed, so none is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
