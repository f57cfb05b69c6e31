"""A contender's process: started, watched, ended; what it and PostgreSQL cost meanwhile."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import psutil

STOP_SECONDS = 20.0


@attrs.frozen
class Process:
    """A running command, with what it started."""

    popen: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """See that it runs.

        Raises:
            RuntimeError: it ended.
        """
        if self.popen.poll() is not None:
            raise RuntimeError(f"{self.popen.args} ended:\n{self.last_words()}")

    def has_ended(self) -> bool:
        """Whether it came to its end.

        Raises:
            RuntimeError: it failed.
        """
        if self.popen.poll():
            self.check()
        return self.popen.poll() is not None

    def last_words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-3_000:]

    def memory_bytes(self) -> int:
        """What is resident of it and of all that it started; pages that they share are counted
        once, where the system tells which those are."""
        total = 0
        for process in _tree(self.popen.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
        return total


@contextlib.contextmanager
def running(
    command: list[str],
    environment: dict[str, str],
    log: Path,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[Process]:
    """A command, for the time of this block; then it is told to stop by this signal."""
    with log.open("wb") as file:
        popen = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield Process(popen, log)
    finally:
        popen.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def cpu_seconds(pid: int) -> float:
    """Time on a processor so far, of a process and all that it started."""
    return sum(
        times.user + times.system + times.children_user + times.children_system
        for process in _tree(pid)
        if (times := _cpu_times(process)) is not None
    )


def _cpu_times(process: psutil.Process) -> "psutil._pslinux.pcputimes | None":
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cpu_times()
    return None


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []
