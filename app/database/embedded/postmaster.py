"""The embedded server's process: whether it lives, how it is started and stopped."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from app.database.embedded.programs import (
    EmbeddedPostgresError,
    environment,
    find_binaries,
    last_lines,
    run,
)

PORT = 5432
SERVER_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    # With so few buffers most pages are written by whoever needs room, and the system keeps them:
    # without this it writes half a gigabyte at once each half minute, and commits wait for it.
    "backend_flush_after": "256kB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}

START_SECONDS = 120.0
RETRY_SECONDS = 20.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05

# Exit codes of pg_isready.
ACCEPTING = 0
SILENT = 2

# What stands in the log when a start failed for a reason that goes away: backends that survived
# their killed server, or a server that was started by a killed process.
PASSING_FAILURES = ("pre-existing shared memory block", "lock file")


class Postmaster:
    """The server of the data in a folder, whichever process started it.

    Nothing is remembered of whether it lives: any process may start, stop or kill it.
    """

    def __init__(self, data: Path, log: Path, socket_dir: Path) -> None:
        self._data = data
        self._log = log
        self._socket_dir = socket_dir
        self._log_start = 0

    def wait_until_accepting(self, binaries: Path, options: dict[str, Any]) -> None:
        """Start the server if none lives, and wait until it takes connections.

        Args:
            binaries: the folder of the server's programs.
            options: arguments for `Popen` that run one of them.

        Raises:
            EmbeddedPostgresError: it ended or takes too long; the message tells what it said.
        """
        deadline = time.monotonic() + START_SECONDS
        retry_until = 0.0
        server = None
        while (answer := self.ask()) != ACCEPTING:
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"The embedded PostgreSQL did not get ready in {START_SECONDS:.0f} seconds. "
                    f"It may need longer to recover: try again. {self._log} ends: {self._said()}"
                )
            if (
                answer == SILENT
                and (server is None or server.poll() is not None)
                and self.find() is None
            ):
                if server is None:
                    retry_until = time.monotonic() + RETRY_SECONDS
                elif time.monotonic() > retry_until or not (
                    server.returncode < 0 or any(text in self._said() for text in PASSING_FAILURES)
                ):
                    raise EmbeddedPostgresError(
                        "The embedded PostgreSQL stopped while it started. "
                        f"{self._log} ends: {self._said()}"
                    )
                self._end_orphans()
                server = self._launch(binaries, options)
            time.sleep(POLL_SECONDS)

    def _launch(self, binaries: Path, options: dict[str, Any]) -> "subprocess.Popen[str]":
        variables = dict(options["env"])
        pid = self._recorded_pid()
        if pid is None:
            # A server that was killed before it wrote its pid; with this file, none starts.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
        else:
            # No server of ours has this pid, though another process or a zombie may. With this
            # variable PostgreSQL does not mind it, and still looks for backends left behind, as
            # it could not if we deleted the file.
            variables["PG_GRANDPARENT_PID"] = str(pid)
        (self._socket_dir / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        command = [str(binaries / "postgres"), "-D", str(self._data)]
        settings = {**SERVER_SETTINGS, "unix_socket_directories": str(self._socket_dir)}
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = os.open(self._log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            # A session of its own keeps the terminal's Ctrl-C away from it.
            server = run(
                command,
                {**options, "env": variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        # No zombie may stay behind when the server ends before this process does.
        threading.Thread(target=server.wait, name="embedded-postgres", daemon=True).start()
        return server

    def _end_orphans(self) -> None:
        """End the backends that a killed server left behind: no server starts beside one.

        Most notice by themselves that their server is gone. One that waits for a lock of a
        backend that was killed, too, never does. To the data it is as a crash.
        """
        for process in psutil.process_iter(["name"]):
            # One that is just ending has no folder and no command line any more.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                if (
                    process.info["name"] == "postgres"
                    and process.cwd() == str(self._data)
                    # Not a server itself, whose command line is as it was started.
                    and "".join(process.cmdline()[:1]).startswith("postgres:")
                    and ((parent := process.parent()) is None or parent.name() != "postgres")
                ):
                    process.kill()

    def ask(self) -> int:
        """What the server answers, as an exit code of pg_isready."""
        command = [
            str(find_binaries() / "pg_isready"),
            f"--host={self._socket_dir}",
            f"--port={PORT}",
            "--username=mailroom",
            "--dbname=postgres",
            "--timeout=5",
            "--quiet",
        ]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, cwd="/", env=environment(), check=False
        ).returncode

    def _recorded_pid(self) -> int | None:
        """The pid of the last server that had these data."""
        try:
            text = (self._data / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
            pid = int(text.partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if pid > 0 else None

    def find(self) -> psutil.Process | None:
        """The living server of these data, whether or not it answers."""
        pid = self._recorded_pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and process.name() == "postgres"
                and str(self._data) in process.cmdline()
            ):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        return None

    def _said(self) -> str:
        """The end of what the server logged since we started it."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._log_start)
                return last_lines(file.read().decode(errors="replace"))
        except FileNotFoundError:
            return ""

    def stop(self) -> bool:
        """End the server and wait for it.

        Returns:
            Whether it has ended. If it takes long it ends without us, and the next start waits.
        """
        server = self.find()
        if server is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_SECONDS
        while self.find() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True
