"""The embedded PostgreSQL: sharing it, killing what runs it, and where it may live."""

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import Mock

import asyncpg
import psutil
import psycopg
import pytest
from support import PROJECT, wait_until

from app.database.embedded import owner
from app.database.embedded import server as server_module
from app.database.embedded.programs import (
    MAJOR_VERSION,
    EmbeddedPostgresError,
    find_binaries,
)
from app.database.embedded.server import EmbeddedPostgres

IS_ROOT = os.geteuid() == 0
OTHER_UID = 54321

HOLD = """
import sys
from pathlib import Path
from app.database.embedded.server import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]))
server.acquire()
print("ready", flush=True)
sys.stdin.readline()
"""

CONNECT_AS_OTHER_USER = f"""
import os, socket, sys
os.setuid({OTHER_UID})
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    print(error.strerror)
"""

# A child that does nothing with what it inherits, and ends as a Python process does.
FORK_AND_FORGET = """
import os, sys
from pathlib import Path
from app.database.embedded.server import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]))
server.acquire()
if os.fork() == 0:
    server.release()
    sys.exit()
os.wait()
print("ready", flush=True)
sys.stdin.readline()
"""

# The child outlives its parent and has copies of all its descriptors.
FORK_AND_WAIT = """
import os, signal, sys
from pathlib import Path
from app.database.embedded.server import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]))
server.acquire()
child = os.fork()
if child == 0:
    signal.pause()
print(child, flush=True)
sys.stdin.readline()
"""

# The child takes a share of its own and outlives its parent.
FORK_AND_ACQUIRE = """
import os, sys
from pathlib import Path
from app.database.embedded.server import EmbeddedPostgres

server = EmbeddedPostgres(Path(sys.argv[1]))
server.acquire()
reading, writing = os.pipe()
if os.fork() == 0:
    server.acquire()
    os.write(writing, b".")
    os.read(0, 1)
    server.release()
    print("released", flush=True)
    os._exit(0)
os.read(reading, 1)
server.release()
print("ready", flush=True)
os._exit(0)
"""


class Script:
    """Another Python process. It says "ready" and ends when it is sent a line."""

    def __init__(self, home: Path, source: str = HOLD) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["", str(PROJECT), *sys.path])},
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        output, _ = self.process.communicate("\n")
        assert self.process.returncode == 0, output

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Script":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def until(condition: Callable[[], object]) -> None:
    # Some of what is waited for does not last.
    wait_until(condition, every=0.01)


def end(process: psutil.Process) -> None:
    """End a server whose home was deleted. It may have noticed that itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGQUIT)
        until(lambda: process.status() == psutil.STATUS_ZOMBIE)


def server_pid(server: EmbeddedPostgres) -> int | None:
    process = server._postmaster.find()
    return process.pid if process else None


def kill_server(server: EmbeddedPostgres) -> None:
    process = server._postmaster.find()
    assert process is not None
    process.kill()
    until(lambda: server._postmaster.find() is None)


def remember(server: EmbeddedPostgres, value: str) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS remembered (value text)")
        connection.execute("INSERT INTO remembered VALUES (%s)", [value])


def remembered(server: EmbeddedPostgres) -> list[str]:
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT value FROM remembered ORDER BY value").fetchall()
    return [row[0] for row in rows]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def put_away(home: Path) -> None:
    server = EmbeddedPostgres(home)
    if (process := server._postmaster.find()) is not None:
        process.send_signal(signal.SIGQUIT)
        until(lambda: server._postmaster.find() is None)
    if server._socket_parent != server.home:
        shutil.rmtree(server._socket_parent, ignore_errors=True)


@pytest.fixture
def folder(short_folder: Path) -> Iterator[Path]:
    yield short_folder
    while short_folder.exists():  # an initdb that a test orphaned may still write
        shutil.rmtree(short_folder, ignore_errors=True)


@pytest.fixture
def fresh_home(folder: Path) -> Iterator[Path]:
    """A home that any user may pass, so that root needs no capabilities for its server."""
    folder.chmod(0o755)
    path = folder / "home"
    path.mkdir(mode=0o755)
    yield path
    put_away(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data as the first start of a server makes them, which takes a while."""
    home = tmp_path_factory.mktemp("original")
    server = EmbeddedPostgres(home)
    server.acquire()
    server.release()
    return server.data


@pytest.fixture
def home(fresh_home: Path, original: Path) -> Path:
    """A home whose server ran and was stopped."""
    subprocess.run(["cp", "-a", original, fresh_home / "postgres"], check=True)
    return fresh_home


async def test_fresh_start_serves_the_database(fresh_home: Path) -> None:
    server = EmbeddedPostgres(fresh_home)
    server.acquire()
    connection = await asyncpg.connect(server.url)
    try:
        found = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in (
                "server_version",
                "fsync",
                "synchronous_commit",
                "server_encoding",
                "TimeZone",
                "listen_addresses",
                "jit",
            )
        }
        databases = await connection.fetch(
            "SELECT current_database()::text AS name, datlocprovider::text AS provider,"
            " datlocale AS locale FROM pg_database WHERE datname = current_database()"
        )
    finally:
        await connection.close()
    assert found.pop("server_version").startswith(MAJOR_VERSION)
    assert found == {
        "fsync": "on",
        "synchronous_commit": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "listen_addresses": "",
        "jit": "off",
    }
    assert [tuple(database) for database in databases] == [("mailroom", "b", "C.UTF-8")]
    server.release()
    assert server_pid(server) is None
    assert not server.socket_dir.exists()


def test_url_is_known_without_starting_anything(fresh_home: Path) -> None:
    server = EmbeddedPostgres(fresh_home)
    quoted = str(fresh_home).replace("/", "%2F")
    assert server.url == f"postgresql://mailroom@/mailroom?host={quoted}%2Fsocket&port=5432"
    assert list(fresh_home.iterdir()) == []


async def test_url_is_not_bent_by_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGDATABASE": "other"}.items():
        monkeypatch.setenv(name, value)
    server = EmbeddedPostgres(home)
    server.acquire()
    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("SELECT current_database()") == "mailroom"
    await connection.close()
    remember(server, "kept")
    server.release()


@pytest.mark.parametrize("name", ["a b\"c$d%e'f+ü", "a,b"])
def test_home_may_have_awkward_characters(folder: Path, name: str) -> None:
    folder.chmod(0o755)
    home = folder / name
    try:
        server = EmbeddedPostgres(home)
        server.acquire()
        remember(server, "kept")
        server.release()
    finally:
        put_away(home)


def test_acquire_and_release_may_be_repeated(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.release()
    server.acquire()
    pid = server_pid(server)
    server.acquire()
    assert server_pid(server) == pid
    remember(server, "kept")
    server.release()
    assert server_pid(server) is None
    server.release()
    server.acquire()
    assert remembered(server) == ["kept"]
    server.release()


def test_threads_may_acquire_at_once(fresh_home: Path) -> None:
    server = EmbeddedPostgres(fresh_home)
    threads = [threading.Thread(target=server.acquire) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    remember(server, "kept")
    server.release()
    assert server_pid(server) is None


def test_last_user_stops_the_server(home: Path) -> None:
    server = EmbeddedPostgres(home)
    with Script(home) as other:
        assert other.line() == "ready"
        pid = server_pid(server)
        server.acquire()
        assert server_pid(server) == pid
        server.release()
        assert server_pid(server) == pid
        other.end()
        assert server_pid(server) is None


def test_starter_may_leave_before_the_others(home: Path) -> None:
    server = EmbeddedPostgres(home)
    with Script(home) as other:
        assert other.line() == "ready"
        server.acquire()
        pid = server_pid(server)
        other.end()
        assert server_pid(server) == pid
        remember(server, "kept")
    server.release()
    assert server_pid(server) is None


def test_processes_may_start_at_once_on_a_home(fresh_home: Path) -> None:
    with Script(fresh_home) as one, Script(fresh_home) as two, Script(fresh_home) as three:
        assert [script.line() for script in (one, two, three)] == ["ready"] * 3
        for script in (one, two, three):
            script.end()
    assert server_pid(EmbeddedPostgres(fresh_home)) is None


def test_server_survives_the_terminals_interrupt(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    pid = server_pid(server)
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)
    server.release()


def test_dropped_database_is_made_again(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    with psycopg.connect(
        server.url.replace("/mailroom?", "/postgres?"), autocommit=True
    ) as connection:
        connection.execute("DROP DATABASE mailroom")
    server.release()
    server.acquire()
    remember(server, "kept")
    server.release()


def test_killed_server_is_started_again_with_its_data(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    for value in ("1", "2", "3"):
        remember(server, value)
        kill_server(server)
        server.acquire()
    assert remembered(server) == ["1", "2", "3"]
    server.release()
    assert server_pid(server) is None


def test_killed_server_is_started_again_while_its_backends_live_on(
    home: Path, original: Path
) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["cp", "-a", original, elsewhere / "postgres"], check=True)
    other = EmbeddedPostgres(elsewhere)
    other.acquire()
    server = EmbeddedPostgres(home)
    server.acquire()
    remember(server, "kept")
    with psycopg.connect(server.url) as connection, psycopg.connect(other.url) as untouched:
        # As one that waits for a lock of a backend that was killed does, it never ends by itself,
        # and holds the shared memory.
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        kill_server(server)
        server.acquire()
        with contextlib.suppress(psutil.NoSuchProcess):
            assert backend.status() == psutil.STATUS_ZOMBIE
        assert remembered(server) == ["kept"]
        untouched.execute("SELECT")
    server.release()
    other.release()


def test_server_may_be_killed_while_it_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(home)
    kills = iter(range(2))
    launch = server._postmaster._launch

    def launch_and_kill(*arguments: Any) -> "subprocess.Popen[str]":
        process = launch(*arguments)
        if next(kills, None) is not None:
            process.kill()
        return process

    monkeypatch.setattr(server._postmaster, "_launch", launch_and_kill)
    server.acquire()
    assert next(kills, None) is None
    remember(server, "kept")
    server.release()


def test_server_of_a_killed_process_is_adopted(home: Path) -> None:
    server = EmbeddedPostgres(home)
    with Script(home) as other:
        assert other.line() == "ready"
        pid = server_pid(server)
        other.kill()
    assert server_pid(server) == pid
    server.acquire()
    assert server_pid(server) == pid
    remember(server, "kept")
    server.release()
    assert server_pid(server) is None


def test_process_may_be_killed_while_it_makes_the_data(fresh_home: Path) -> None:
    server = EmbeddedPostgres(fresh_home)
    with Script(fresh_home) as other:
        until(lambda: list(fresh_home.glob("postgres.new-*/base")))
        other.kill()
    server.acquire()
    remember(server, "kept")
    server.release()


def test_process_may_be_killed_while_it_starts_the_server(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    remember(server, "kept")
    server.release()
    with Script(home) as other:
        until((server.data / "postmaster.pid").exists)
        other.kill()
    server.acquire()
    assert remembered(server) == ["kept"]
    server.release()
    assert server_pid(server) is None


def stale_pid(server: EmbeddedPostgres, pid: int) -> None:
    """Kill the server and let its files name another process."""
    kill_server(server)
    files = [server.data / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"]
    for file in files:
        _, _, rest = file.read_text().partition("\n")
        file.write_text(f"{pid}\n{rest}")


def test_pid_of_a_foreign_process_is_no_obstacle(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    remember(server, "kept")
    # As the server's own user, for PostgreSQL does not mind the processes of others.
    owner = server.data.stat().st_uid
    with subprocess.Popen(["/bin/sleep", "1000"], user=owner if IS_ROOT else None) as sleeper:
        try:
            stale_pid(server, sleeper.pid)
            server.release()
            assert sleeper.poll() is None
            server.acquire()
            assert remembered(server) == ["kept"]
            server.release()
            assert server_pid(server) is None
            assert sleeper.poll() is None
        finally:
            sleeper.kill()


def test_pid_of_another_homes_server_is_no_obstacle(home: Path) -> None:
    server, other = EmbeddedPostgres(home), EmbeddedPostgres(home / "other")
    try:
        server.acquire()
        other.acquire()
        other_pid = server_pid(other)
        assert other_pid is not None
        stale_pid(server, other_pid)
        server.release()
        server.acquire()
        remember(server, "kept")
        server.release()
        assert server_pid(other) == other_pid
        other.release()
    finally:
        put_away(home / "other")


@pytest.mark.parametrize("left", ["nothing", "its folder"])
def test_processes_that_are_just_ending_are_no_obstacle(
    home: Path, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes a process apart while it is looked at."""
    server = EmbeddedPostgres(home)
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/1/cwd")
    folder = {"return_value": str(server._postmaster._data)}
    ending = Mock(info={"name": "postgres"})
    ending.cwd = Mock(**(folder if left == "its folder" else {"side_effect": gone}))
    ending.cmdline.return_value = []
    monkeypatch.setattr("psutil.process_iter", lambda _attributes: [ending])
    server.acquire()
    server.release()
    ending.cwd.assert_called()
    ending.kill.assert_not_called()


@pytest.mark.parametrize("content", ["", "nonsense\n", "-1\n"])
def test_damaged_pid_file_is_no_obstacle(home: Path, content: str) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    server.release()
    (server.data / "postmaster.pid").write_text(content)
    server.acquire()
    remember(server, "kept")
    server.release()


def test_home_may_be_deleted_and_made_again_while_in_use(home: Path) -> None:
    with Script(home) as other:
        assert other.line() == "ready"
        old = EmbeddedPostgres(home)._postmaster.find()
        assert old is not None
        shutil.rmtree(home)
        server = EmbeddedPostgres(home)
        server.acquire()
        remember(server, "kept")
        other.end()
        assert remembered(server) == ["kept"]
        server.release()
        end(old)


def test_share_counts_after_the_home_was_deleted(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    old = server._postmaster.find()
    assert old is not None
    shutil.rmtree(home)
    server.acquire()
    with Script(home) as other:
        assert other.line() == "ready"
        other.end()
    remember(server, "kept")
    server.release()
    assert server_pid(server) is None
    end(old)


def test_deleted_home_does_not_break_the_release(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    process = server._postmaster.find()
    assert process is not None
    shutil.rmtree(home)
    server.release()
    end(process)


def test_long_home_gets_a_socket_elsewhere(fresh_home: Path) -> None:
    deep = fresh_home / ("x" * 60) / ("y" * 60)
    server = EmbeddedPostgres(deep)
    try:
        assert len(str(server.socket_dir)) < 60
        server.acquire()
        assert mode(server.socket_dir) == mode(server.socket_dir.parent) == 0o700
        assert server.socket_dir.parent.stat().st_uid == os.geteuid()
        remember(server, "kept")
        server.release()
        assert not server.socket_dir.parent.exists()
    finally:
        put_away(deep)


@pytest.mark.parametrize("make", ["folder", "link"])
def test_socket_folder_of_somebody_else_is_refused(fresh_home: Path, make: str) -> None:
    server = EmbeddedPostgres(fresh_home / ("x" * 100))
    parent = server.socket_dir.parent
    if make == "link":
        parent.symlink_to(fresh_home)
    elif IS_ROOT:
        parent.mkdir(mode=0o777)
        os.chown(parent, OTHER_UID, OTHER_UID)
    else:
        pytest.skip("only root can make a folder that belongs to somebody else")
    try:
        with pytest.raises(EmbeddedPostgresError, match="could pretend to be the database"):
            server.acquire()
    finally:
        parent.unlink() if make == "link" else parent.rmdir()


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
def test_root_may_have_its_home_in_a_private_folder(folder: Path) -> None:
    home = folder / "home"
    server = EmbeddedPostgres(home)
    try:
        server.acquire()
        remember(server, "kept")
        process = server._postmaster.find()
        assert process is not None
        assert process.uids().effective == server.data.stat().st_uid != 0
        kill_server(server)
        server.acquire()
        assert remembered(server) == ["kept"]
        server.release()
        assert mode(folder) == mode(home) == 0o700
        assert folder.stat().st_uid == home.stat().st_uid == 0
    finally:
        put_away(home)


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
@pytest.mark.parametrize("program_mode", [0o755, 0o700])
def test_root_may_have_the_programs_in_a_private_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, program_mode: int
) -> None:
    private = home / "private"
    private.mkdir(mode=0o700)
    package = find_binaries().parents[1]
    for part in (f"{package.name}/pginstall{MAJOR_VERSION}", f"{package.name}.libs"):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, private / part)
    binaries = private / package.name / f"pginstall{MAJOR_VERSION}" / "bin"
    for program in binaries.iterdir():
        program.chmod(program_mode)
    monkeypatch.setattr(server_module, "find_binaries", lambda: binaries)
    server = EmbeddedPostgres(home)
    server.acquire()
    process = server._postmaster.find()
    assert process is not None
    assert process.exe() == str(binaries / "postgres")
    remember(server, "kept")
    server.release()


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as another user")
def test_root_without_its_rights_is_told_so(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_held_capabilities", lambda: 0)
    with pytest.raises(EmbeddedPostgresError, match="run Mailroom as an ordinary user"):
        EmbeddedPostgres(fresh_home).acquire()


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")
def test_root_runs_the_server_as_the_owner_of_the_data(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    remember(server, "kept")
    server.release()
    for path in (server.data, *server.data.rglob("*")):
        os.chown(path, OTHER_UID, OTHER_UID)
    server.acquire()
    process = server._postmaster.find()
    assert process is not None
    assert process.uids().effective == OTHER_UID
    assert remembered(server) == ["kept"]
    server.release()
    os.chown(server.data, 0, 0)
    with pytest.raises(EmbeddedPostgresError, match="chown -R nobody"):
        server.acquire()


def test_nobody_else_reaches_the_server(fresh_home: Path) -> None:
    server = EmbeddedPostgres(fresh_home)
    server.acquire()
    assert mode(server.data) == mode(server.socket_dir) == 0o700
    assert mode(server.socket_dir / ".s.PGSQL.5432") == 0o700
    for name in ("postgres.log", "postgres.lock", "postgres.users"):
        assert mode(fresh_home / name) == 0o600
    assert mode(fresh_home) == 0o755
    if IS_ROOT:
        with Script(server.socket_dir / ".s.PGSQL.5432", CONNECT_AS_OTHER_USER) as other:
            assert other.line() == "Permission denied"
    server.release()


def test_home_that_is_made_is_private(fresh_home: Path) -> None:
    server = EmbeddedPostgres(fresh_home / "made")
    try:
        server.acquire()
        assert mode(server.home) == 0o700
        server.release()
    finally:
        put_away(server.home)


def test_forked_child_does_not_stop_the_server(home: Path) -> None:
    server = EmbeddedPostgres(home)
    with Script(home, FORK_AND_FORGET) as other:
        assert other.line() == "ready"
        remember(server, "kept")
        server.acquire()
        other.end()
    assert remembered(server) == ["kept"]
    server.release()
    assert server_pid(server) is None


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_forked_child_does_not_keep_the_server(home: Path, how: str) -> None:
    server = EmbeddedPostgres(home)
    with Script(home, FORK_AND_WAIT) as other:
        child = psutil.Process(int(other.line()))
        try:
            server.acquire()
            if how == "is killed":
                other.kill()
            else:
                assert other.process.stdin is not None
                other.process.stdin.write("\n")
                other.process.stdin.flush()
                other.process.wait()
            server.release()
            assert server_pid(server) is None
            assert child.is_running()
        finally:
            child.kill()


def test_forked_child_may_take_a_share_of_its_own(home: Path) -> None:
    server = EmbeddedPostgres(home)
    with Script(home, FORK_AND_ACQUIRE) as other:
        assert other.line() == "ready"
        remember(server, "kept")
        assert other.process.stdin is not None
        other.process.stdin.write("\n")
        other.process.stdin.flush()
        assert other.line() == "released"
        assert server_pid(server) is None


def test_fork_while_another_thread_starts_the_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(home)
    begun, forked = threading.Event(), threading.Event()
    launch = server._postmaster._launch

    def launch_after_fork(*arguments: Any) -> "subprocess.Popen[str]":
        begun.set()
        forked.wait()
        return launch(*arguments)

    monkeypatch.setattr(server._postmaster, "_launch", launch_after_fork)
    thread = threading.Thread(target=server.acquire)
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        # Neither the thread's mutex nor its locks may be in the way here.
        server.release()
        os._exit(0 if server._mutex.acquire(blocking=False) else 1)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    remember(server, "kept")
    server.release()
    assert server_pid(server) is None


def test_data_of_another_version_are_refused(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    server.release()
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 17") as raised:
        server.acquire()
    assert str(server.data) in str(raised.value)
    (server.data / "PG_VERSION").write_text(f"{MAJOR_VERSION}\n")
    server.acquire()
    server.release()


def test_folder_without_data_is_refused(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    server.release()
    (server.data / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedPostgresError, match="holds no PostgreSQL data"):
        server.acquire()


def test_missing_programs_are_named(fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresError, match="set DATABASE_URL"):
        EmbeddedPostgres(fresh_home).acquire()


def test_unusable_home_is_named(fresh_home: Path) -> None:
    file = fresh_home / "file"
    file.touch()
    with pytest.raises(EmbeddedPostgresError, match=r"file/made.*set MAILROOM_HOME"):
        EmbeddedPostgres(file / "made").acquire()


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_home_without_the_right_to_write_is_named(fresh_home: Path) -> None:
    fresh_home.chmod(0o500)
    with pytest.raises(EmbeddedPostgresError, match="Permission denied"):
        EmbeddedPostgres(fresh_home).acquire()


def test_failed_initdb_tells_why_and_leaves_nothing(
    fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = fresh_home / "programs"
    programs.mkdir()
    for name in ("initdb", "postgres"):
        program = programs / name
        program.write_text("#!/bin/sh\necho No space left on device\nexit 1\n")
        program.chmod(0o755)
    server = EmbeddedPostgres(fresh_home)
    with monkeypatch.context() as patch:
        patch.setattr(server_module, "find_binaries", lambda: programs)
        with pytest.raises(EmbeddedPostgresError, match="No space left on device"):
            server.acquire()
    assert not server.data.exists()
    assert list(fresh_home.glob("postgres.new-*")) == []
    server.acquire()
    server.release()


def test_server_that_cannot_start_tells_why(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.acquire()
    server.release()
    configuration = server.data / "postgresql.conf"
    sound = configuration.read_text()
    configuration.write_text(sound + "no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        server.acquire()
    configuration.write_text(sound)
    server.acquire()
    server.release()
