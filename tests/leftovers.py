"""The run of the tests ends with a look for processes that they left behind, which make it fail.

A process belongs to this run if it inherited the run's mark, or works in one of the run's folders:
the embedded server inherits nothing. What another checkout's tests run is not touched.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# Processes of pytest-xdist find it in their environment, and so does whatever the tests start.
MARK = "FOLDER_OF_THIS_TEST_RUN"
# A machine under load takes a while to end what was told to end.
PATIENCE_SECONDS = 30.0


def make_folder() -> Path:
    """The folder of this run, which is its mark, too."""
    if MARK not in os.environ:
        # Short, because the path of a server's socket may not be long; open, because PostgreSQL and
        # PgBouncer run as other users.
        folder = Path(tempfile.mkdtemp(prefix="mr-"))
        folder.chmod(0o755)
        os.environ[MARK] = str(folder)
    return Path(os.environ[MARK])


class Leftovers:
    """Registered with pytest, in the process that distributes the tests or runs them all."""

    def __init__(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._told: list[str] = []

    def pytest_configure(self) -> None:
        # Who ends a run that takes too long leaves nothing either.
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        folders = [Path(os.environ[MARK]), session.config._tmp_path_factory.getbasetemp()]
        # They end in their own time first: a server stops when its last user has gone.
        _, left = psutil.wait_procs([*_processes_of(folders)], timeout=self._patience_seconds)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._told.append(f"{process.pid}: {' '.join(process.cmdline())}")
                process.kill()
        psutil.wait_procs(left, timeout=PATIENCE_SECONDS)
        if self._told and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._told:
            terminalreporter.section("processes that the tests left behind", red=True)
            for line in self._told:
                terminalreporter.line(line)

    def pytest_unconfigure(self) -> None:
        shutil.rmtree(os.environ[MARK], ignore_errors=True)


def _processes_of(folders: list[Path]) -> Iterator[psutil.Process]:
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        # Whose environment nobody may read, this run has not started.
        with contextlib.suppress(psutil.Error):
            if (
                process.pid not in own
                and process.status() != psutil.STATUS_ZOMBIE
                and (
                    any(Path(process.cwd()).is_relative_to(folder) for folder in folders)
                    or process.environ().get(MARK) == os.environ[MARK]
                )
            ):
                yield process
