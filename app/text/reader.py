"""Reads the text of emails without holding up the event loop: short bodies at once, long ones in
processes of their own, which can be ended and end with the worker."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from app.errors import MailroomError
from app.text.email_text import read_email_text
from app.text.reader_process import MOST_CPU_SECONDS, read_message, write_message

# Read at once: it takes less time than asking another process.
MOST_CHARACTERS_AT_ONCE = 4_000
# Longer ones have a process of their own, so that six emails of megabytes hold up none of the
# usual size.
MOST_CHARACTERS_OF_USUAL_ONES = 200_000


class TextReaderError(MailroomError):
    """The process that reads long bodies ended over one."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


@attrs.frozen
class ReadText:
    """What was read: the words of the writer, and what else `EmailText` has, as JSON takes it."""

    cleaned_body: str
    data: dict[str, Any]


class ReaderProcess:
    """One process that reads bodies, one after another; started when the first one comes."""

    def __init__(self, name: str) -> None:
        # The thread waits for the process; ending the process frees it.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"text-{name}")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._request: object = None

    async def read(self, fields: Mapping[str, Any]) -> ReadText:
        """Read a body, given the arguments of `read_email_text`.

        If the caller is cancelled meanwhile, the process is ended.

        Raises:
            TextReaderError: the process ended over it.
        """
        request = object()
        future = self._executor.submit(self._exchange, request, json.dumps(fields).encode())
        try:
            content: bytes = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                self._end(request)
            raise
        answer = json.loads(content)
        return ReadText(answer["cleaned_body"], answer["data"])

    @property
    def process_id(self) -> int | None:
        """The id of the process, if it was started."""
        return None if self._process is None else self._process.pid

    def end(self) -> None:
        """End the process, if it was started; the next read starts another."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _exchange(self, request: object, content: bytes) -> bytes:
        with self._lock:
            process = self._running()
            self._request = request
        answer = None
        try:
            if process.stdin is not None and process.stdout is not None:
                write_message(process.stdin, content)  # type: ignore[arg-type]
                answer = read_message(process.stdout)  # type: ignore[arg-type]
        except OSError:
            # It ended before it had read all of it: as if there were no answer.
            answer = None
        finally:
            with self._lock:
                self._request = None
        if answer is None:
            raise self._describe_end(process)
        return answer

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.text.reader_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process

    def _end(self, request: object) -> None:
        with self._lock:
            if self._request is request and self._process is not None:
                self._process.kill()

    def _describe_end(self, process: "subprocess.Popen[bytes]") -> TextReaderError:
        process.kill()
        status = process.wait()
        if status == -signal.SIGPROF:
            return TextReaderError(
                f"the body could not be read within {MOST_CPU_SECONDS:g} s of a processor",
                is_final=True,
            )
        return TextReaderError(
            f"the process that reads long bodies ended over this one (status {status})",
            is_final=False,
        )


_USUAL = ReaderProcess("usual")
_LONG = ReaderProcess("long")


async def read_text(
    *, html: str, text: str, subject: str, sender: str, headers: Mapping[str, str]
) -> ReadText:
    """Read the body of an email beside the event loop; see `read_email_text`.

    Raises:
        TextReaderError: the process that read it ended over it.
    """
    fields = {
        "html": "" if text.strip() else html,
        "text": text,
        "subject": subject,
        "sender": sender,
        "headers": dict(headers),
    }
    size = len(fields["html"] or text)
    if size <= MOST_CHARACTERS_AT_ONCE:
        read = read_email_text(
            html=html, text=text, subject=subject, sender=sender, headers=headers
        )
        return ReadText(read.cleaned_body, read.as_data())
    reader = _USUAL if size <= MOST_CHARACTERS_OF_USUAL_ONES else _LONG
    return await reader.read(fields)


def end_readers() -> None:
    """End the processes now; they also end with this one."""
    for reader in (_USUAL, _LONG):
        reader.end()
