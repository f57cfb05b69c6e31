"""Answers requests that come on the standard input; `app/text/asked_process.py` sends them.

They end where the process that asks does, however it ends."""

import json
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")


def answer_requests(
    answer: Callable[..., Any], *, most_cpu_seconds: float, most_memory_bytes: int
) -> None:
    """Answer what comes on the standard input until nothing more does.

    Args:
        answer: gets the fields of a request by name; what it returns JSON has to take.
        most_cpu_seconds: of a processor's time, for one request. SIGPROF ends the process then.
        most_memory_bytes: of all that the process has.
    """
    # No image of the memory, which holds emails, is left where it is ended for taking too much.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (most_memory_bytes, most_memory_bytes))
    # Who stops its parent gives that one time to finish; it needs this process for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer, answer, most_cpu_seconds=most_cpu_seconds)


def serve(
    requests: BinaryIO, answers: BinaryIO, answer: Callable[..., Any], *, most_cpu_seconds: float
) -> None:
    """Answer each request."""
    while (content := read_message(requests)) is not None:
        signal.setitimer(signal.ITIMER_PROF, most_cpu_seconds)
        answered = json.dumps(answer(**json.loads(content))).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_message(answers, answered)


def read_message(source: BinaryIO) -> bytes | None:
    """One message, or None where the source ends."""
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = source.read(length)
    return content if len(content) == length else None


def write_message(target: BinaryIO, content: bytes) -> None:
    """One message, its length before it."""
    target.write(LENGTH.pack(len(content)) + content)
    target.flush()
