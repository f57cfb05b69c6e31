"""The folder of the files that are being fetched. Each process has one of its own, and whoever
starts removes those of processes that are gone, so that nothing half-fetched stays."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from uuid import uuid4

import structlog

log = structlog.get_logger(__name__)

LOCK = "lock"


class Downloads:
    """A folder for as long as this process lives.

    Args:
        folder: in which each process has its own.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        # What customers sent is nobody's business but the owner's.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(folder)
        self.path, self._lock = _make(folder)
        while not (self.path / LOCK).exists():
            # Somebody took it for abandoned before it was locked.
            os.close(self._lock)
            self.path, self._lock = _make(folder)

    def close(self) -> None:
        """Remove it, with what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make(folder: Path) -> tuple[Path, int]:
    """Returns a new folder and its lock, which goes with the process, however that ends."""
    path = folder / uuid4().hex
    path.mkdir(mode=0o700)
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return path, lock


def _remove_abandoned(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            lock = os.open(path / LOCK, os.O_RDWR)
            try:
                # Not to be had while its process lives.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                log.info("abandoned_downloads_removed")
            finally:
                os.close(lock)
