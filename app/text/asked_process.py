"""A process that answers requests, and is asked without holding up the event loop: it can be ended,
and ends with the process that started it. `app/text/answering.py` is its side."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.errors import MailroomError
from app.text.answering import read_message, write_message


class ProcessEndedError(MailroomError):
    """The process ended over a request. `status` is that of `Popen.wait`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the process ended over its request (status {status})")
        self.status = status

    @property
    def is_out_of_time(self) -> bool:
        """It took longer than a request may."""
        return self.status == -signal.SIGPROF


class AskedProcess:
    """One process that runs a module; started when the first request comes.

    Args:
        name: of the thread that waits for it.
        module: calls `serve` of `app/text/answering.py`.
    """

    def __init__(self, name: str, module: str) -> None:
        # The thread waits for the process; ending the process frees it.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._request: object = None

    async def ask(self, fields: Mapping[str, Any]) -> Any:
        """What it answers to a request.

        If the caller is cancelled meanwhile, the process is ended.

        Raises:
            ProcessEndedError: the process ended over it; the next request has another.
        """
        request = object()
        future = self._executor.submit(self._exchange, request, json.dumps(fields).encode())
        try:
            content: bytes = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                self._end(request)
            raise
        return json.loads(content)

    @property
    def process_id(self) -> int | None:
        """The id of the process, if it was started."""
        return None if self._process is None else self._process.pid

    def end(self) -> None:
        """End the process, if it was started; the next request starts another."""
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
            process.kill()
            raise ProcessEndedError(process.wait())
        return answer

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process

    def _end(self, request: object) -> None:
        with self._lock:
            if self._request is request and self._process is not None:
                self._process.kill()
