"""The PostgreSQL of a storm: one server, or a primary with a synchronous standby."""

import contextlib
import shutil
import threading
import time
from pathlib import Path
from typing import Protocol

import psutil
import psycopg
from servers import Pair, Server, make_folder_of_servers
from support import WAIT_SECONDS

from app.database.embedded.programs import find_binaries
from app.database.embedded.server import EmbeddedPostgres


class Database(Protocol):
    """What a storm asks of it. Whoever makes it go away brings it back before another does."""

    @property
    def url(self) -> str:
        """Of what can write."""
        ...

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where it listens: hosts and ports, or the path of a Unix socket."""
        ...

    def crash(self, seconds: float = 0.0) -> None:
        """Have all of its processes die at once, as a crash of its machine would; it starts again
        after so long."""
        ...

    def end(self) -> None: ...


class Alone:
    """An embedded server, in a folder with a migrated database."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._server = EmbeddedPostgres(home)
        self._server.acquire()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        there = psycopg.conninfo.conninfo_to_dict(self.url)
        return [f"{there['host']}/.s.PGSQL.{there.get('port', 5432)}"]

    def crash(self, seconds: float = 0.0) -> None:
        with self._lock:
            kill_server(self._home / "postgres")
            time.sleep(seconds)
            self._server.acquire()

    def end(self) -> None:
        self._server.release()


class WithStandby:
    """A primary whose commits wait for its standby, and take its place with it in turns."""

    # A standby that waits for the primary's return looks for it each five seconds by default.
    SETTINGS = "wal_retrieve_retry_interval = 200ms\nmax_connections = 100\n"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder = make_folder_of_servers()
        self._pair = Pair(self._folder, find_binaries(), self.SETTINGS)
        self._pair.be_synchronous()

    @property
    def url(self) -> str:
        return f"{self._pair.url}?target_session_attrs=read-write"

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        return [("127.0.0.1", server.port) for server in self._servers()]

    def crash(self, seconds: float = 0.0) -> None:
        with self._lock:
            primary = self._pair.primary
            kill_server(primary.data)
            time.sleep(seconds)
            primary.start()
            # What it committed and nobody was told of is on the standby before that is needed: a
            # webhook that comes again is answered as a duplicate, and waits for no standby.
            self._pair.wait_for_standby()

    def promote(self) -> None:
        """The primary dies, its standby takes over, and gets a new standby in place of the dead
        one: until that is there, commits wait for nobody."""
        with self._lock:
            kill_server(self._pair.primary.data)
            self._pair.standby.promote()
            self._pair.change_places()
            self._pair.be_synchronous()

    def end(self) -> None:
        self._pair.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _servers(self) -> tuple[Server, Server]:
        return self._pair.primary, self._pair.standby


def kill_server(data: Path) -> None:
    """End a server of these data, with all of its processes."""
    pid = int((data / "postmaster.pid").read_text().split()[0])
    with contextlib.suppress(psutil.NoSuchProcess):
        postmaster = psutil.Process(pid)
        # It starts no other one meanwhile.
        postmaster.suspend()
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=WAIT_SECONDS)
