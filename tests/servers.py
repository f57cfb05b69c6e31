"""PostgreSQL servers of a test's own, run as an ordinary user."""

import atexit
import contextlib
import functools
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from support import free_port, wait_until

from app.database.embedded.programs import find_binaries

REPLICATES = "SELECT 1 FROM pg_stat_replication"
SYNCHRONOUS = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
CAUGHT_UP = f"{SYNCHRONOUS} AND flush_lsn >= %s::pg_lsn"


def make_folder_of_servers() -> Path:
    """A folder that the servers' user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    return folder


def programs_of_16() -> Path:
    """The folder of the programs of PostgreSQL 16, which come along with those of the embedded
    server. They are all whole: `pg_verifybackup` of the others is not."""
    return find_binaries().parent.parent / "pginstall" / "bin"


@functools.cache
def reachable(programs: Path) -> Path:
    """The programs themselves, or a copy where the servers' user may not enter their folder."""
    entered = [programs, *programs.parents]
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in entered):
        return programs
    folder = Path(tempfile.mkdtemp(prefix="pg-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    version = programs.parent
    package = version.parent
    # Where the programs look for them.
    libraries = f"{package.name}.libs"
    shutil.copytree(package.parent / libraries, folder / libraries, symlinks=True)
    shutil.copytree(version, folder / package.name / version.name, symlinks=True)
    return folder / package.name / version.name / programs.name


class Server:
    """One server over TCP, with a database `mailroom` and a superuser of that name.

    Args:
        data: where its data are, or are to be.
        programs: of which PostgreSQL.
    """

    def __init__(self, data: Path, programs: Path | None = None) -> None:
        self.data = data
        self.port = free_port()
        self.programs = reachable(programs or find_binaries())
        self.user = "nobody" if os.geteuid() == 0 else None

    def url(self, database: str = "mailroom") -> str:
        return f"postgresql://mailroom@127.0.0.1:{self.port}/{database}"

    def make(self, settings: str = "") -> None:
        """Make its data and start it.

        Args:
            settings: more lines of `postgresql.conf`.
        """
        self.run("initdb", "-D", str(self.data), "-U", "mailroom", "-A", "trust", "-E", "UTF8")
        self.configure(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nshared_buffers = 16MB\n"
            f"max_connections = 60\n{settings}"
        )
        self.start()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE mailroom")

    def configure(self, settings: str) -> None:
        """Add lines to `postgresql.conf`."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{settings}\nport = {self.port}\n")

    def start(self) -> None:
        self.run(
            "pg_ctl", "start", "-w", "-t", "120", "-l", f"{self.data}.log", "-D", str(self.data)
        )

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "stop", "-w", "-t", "120", "-m", mode, "-D", str(self.data), check=False)

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-w", "-t", "120", "-D", str(self.data))

    def run(self, program: str, *arguments: str, check: bool = True) -> None:
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            user=self.user,
            cwd="/",
            check=False,
            # A server that is started would hold the pipe.
            stdout=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert not check or done.returncode == 0, done.stdout


class Pair:
    """A primary with a streaming standby.

    Args:
        folder: of `make_folder_of_servers`.
        programs: of which PostgreSQL.
        settings: more lines of `postgresql.conf`.
    """

    def __init__(self, folder: Path, programs: Path, settings: str = "") -> None:
        self.primary = Server(folder / "data-0", programs)
        self.standby = Server(folder / "data-1", programs)
        try:
            self.primary.make(f"wal_level = replica\n{settings}")
            self._copy_primary()
        except BaseException:
            self.end()
            raise

    def _copy_primary(self) -> None:
        source = f"host=127.0.0.1 port={self.primary.port} user=mailroom"
        self.primary.run(
            "pg_basebackup", "-D", str(self.standby.data), "-d", source, "-R", "-c", "fast"
        )
        self.standby.configure("")
        self.standby.start()

    @property
    def url(self) -> str:
        """Of both, for whoever wants the one that can write."""
        first, second = self.primary.port, self.standby.port
        return f"postgresql://mailroom@127.0.0.1:{first},127.0.0.1:{second}/mailroom"

    def be_synchronous(self) -> None:
        """Have each commit wait for the standby from now on."""
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(lambda: connection.execute(SYNCHRONOUS).fetchone())
            # Commits wait once the checkpointer has read it, too.
            connection.execute("CHECKPOINT")

    def wait_for_standby(self) -> None:
        """Wait until the standby has all that the primary has by now."""
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            flushed = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            wait_until(lambda: connection.execute(CAUGHT_UP, flushed).fetchone())

    def cut(self) -> None:
        """Let the standby receive nothing more, and the primary commit without it."""
        with psycopg.connect(self.standby.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            wait_until(lambda: not connection.execute(REPLICATES).fetchone())

    def promote(self) -> None:
        """Cut off the primary, and let the standby take over."""
        self.primary.stop("immediate")
        self.standby.promote()

    def change_places(self) -> None:
        """After the standby took over from a primary that is gone: give it a new standby, where
        that primary was."""
        self.primary, self.standby = self.standby, self.primary
        shutil.rmtree(self.standby.data)
        self._copy_primary()

    def end(self) -> None:
        for server in (self.primary, self.standby):
            server.stop("immediate")


@contextlib.contextmanager
def running_server(programs: Path) -> Iterator[str]:
    """A server of a session's own, for the time of this block. Returns the URL of its database."""
    folder = make_folder_of_servers()
    server = Server(folder / "data", programs)
    try:
        server.make("max_connections = 300\n")
        yield f"{server.url()}?sslmode=disable"
    finally:
        server.stop("immediate")
        shutil.rmtree(folder)
