"""The check of a file by a clamd of the operator's, before it is kept.

https://docs.clamav.net/manual/Usage/Scanning.html#clamd
"""

import asyncio
from pathlib import Path
from typing import BinaryIO, cast

from aioclamd import (
    BufferTooLongError,
    ClamdAsyncClient,
    ClamdConnectionError,
    ClamdError,
    ConnectionTimeoutError,
)

from app.errors import MailroomError

CHECK_SECONDS = 120.0
_BLOCK = 256 * 1024
TOO_LARGE = "the file is larger than StreamMaxLength of clamd allows"
HUNG_UP = (ConnectionError, ClamdConnectionError)


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
            blocks = _InBlocks(file)
            try:
                # The client reads a KiB at a time, each in a thread: a file of 50 MB would take
                # 50,000 of them.
                answer = await self._clamd.instream(cast(BinaryIO, blocks))
            except BufferTooLongError:
                raise TooLargeToCheckError(TOO_LARGE) from None
            except ConnectionTimeoutError as error:
                raise VirusCheckError("clamd did not check it in time") from error
            except (ClamdError, OSError) as error:
                # It says so and hangs up at once, and what it said is lost where more was on the
                # way. One that was ended answers nothing for a while.
                if blocks.were_read and isinstance(error, HUNG_UP) and await self._answers():
                    raise TooLargeToCheckError(TOO_LARGE) from error
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
        if not await self._answers():
            raise VirusCheckError("clamd does not answer: see MAILROOM_CLAMD")

    async def _answers(self) -> bool:
        try:
            return bool(await self._clamd.ping() == "PONG")
        except (ClamdError, OSError):
            return False


class _InBlocks:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.were_read = False

    def read(self, _size: int) -> bytes:
        self.were_read = True
        return self._file.read(_BLOCK)
