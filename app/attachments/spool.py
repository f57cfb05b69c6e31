"""A file on its way in: written as it comes, its hash and size taken meanwhile."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import MailroomError

# Bytes that are gathered before a thread writes and hashes them.
_BLOCK = 256 * 1024


class SpoolError(MailroomError):
    """This machine cannot write files down; the message says why, and names none."""


class Spool:
    """A temporary file in a folder; it is removed unless `keep` was called. Nothing of its name
    comes from the email."""

    def __init__(self, folder: Path, head_bytes: int) -> None:
        """`head_bytes` are kept in memory, to tell what the file is."""
        self._folder = folder
        self._head_bytes = head_bytes
        self._waiting = bytearray()
        self._hash = hashlib.sha256()
        self._is_kept = False
        self.head = b""
        self.size = 0

    def __enter__(self) -> Self:
        with _explained():
            descriptor, name = tempfile.mkstemp(prefix="fetched-", dir=self._folder)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self.path = Path(name)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        if not self._is_kept:
            self.path.unlink(missing_ok=True)

    async def write(self, block: bytes) -> None:
        """Add bytes at the end.

        Raises:
            SpoolError: there is no room for them.
        """
        if len(self.head) < self._head_bytes:
            self.head += block[: self._head_bytes - len(self.head)]
        self.size += len(block)
        self._waiting += block
        if len(self._waiting) >= _BLOCK:
            await self.flush()

    async def flush(self) -> None:
        """Write what is still in memory.

        Raises:
            SpoolError: there is no room for it.
        """
        waiting, self._waiting = self._waiting, bytearray()
        await asyncio.to_thread(self._write, waiting)

    def keep(self) -> str:
        """Leave the file to the caller; returns the SHA-256 of what was flushed, in hex."""
        self._is_kept = True
        return self._hash.hexdigest()

    def _write(self, block: bytearray) -> None:
        self._hash.update(block)
        view = memoryview(block)
        with _explained():
            while view:
                view = view[self._file.write(view) :]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpoolError(f"it cannot be written down here ({error.strerror})") from error
