"""The check of a file by a clamd of the operator's, before it is kept.

https://docs.clamav.net/manual/Usage/Scanning.html#clamd
"""

import asyncio
from pathlib import Path
from typing import BinaryIO, cast

from aioclamd import BufferTooLongError, ClamdAsyncClient, ClamdError

from app.errors import MailroomError

CHECK_SECONDS = 120.0
_BLOCK = 256 * 1024


class VirusCheckError(MailroomError):
    """The check could not be made, and may be possible later."""


class TooLargeToCheckError(VirusCheckError):
    """clamd does not take files of this size."""


class VirusCheck:
    """Asks one clamd."""

    def __init__(self, address: str) -> None:
        """`address` is `host:port`."""
        host, _, port = address.rpartition(":")
        self._clamd = ClamdAsyncClient(host.strip("[]"), int(port), timeout=CHECK_SECONDS)

    async def find(self, path: Path) -> str | None:
        """The name of what is wrong with a file; None where nothing was found.

        Raises:
            VirusCheckError: it was not checked.
            TooLargeToCheckError: it never will be, with clamd as it is set up.
        """
        with await asyncio.to_thread(path.open, "rb") as file:
            try:
                # The client reads a KiB at a time, each in a thread: a file of 50 MB would take
                # 50,000 of them.
                answer = await self._clamd.instream(cast(BinaryIO, _InBlocks(file)))
            except BufferTooLongError:
                raise TooLargeToCheckError(
                    "the file is larger than StreamMaxLength of clamd allows"
                ) from None
            except (ClamdError, OSError) as error:
                raise VirusCheckError(f"clamd did not check it ({type(error).__name__})") from error
        # An answer of nothing is no answer that nothing was found.
        status, found = next(iter((answer or {}).values()), ("ERROR", None))
        if status == "FOUND":
            return str(found)
        if status != "OK":
            raise VirusCheckError(f"clamd did not check it ({found or 'no answer'})")
        return None

    async def try_out(self) -> None:
        """See that clamd is there.

        Raises:
            VirusCheckError: it does not answer.
        """
        try:
            answer = await self._clamd.ping()
        except (ClamdError, OSError):
            answer = None
        if answer != "PONG":
            raise VirusCheckError("clamd does not answer: see MAILROOM_CLAMD")


class _InBlocks:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, _size: int) -> bytes:
        return self._file.read(_BLOCK)
