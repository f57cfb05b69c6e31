"""The process that reads long bodies: requests on its standard input, answers on its output.

It ends when its input does, and so with the process that started it, however that one ends."""

import json
import signal
import struct
import sys
from typing import BinaryIO

from app.text.email_text import read_email_text

LENGTH = struct.Struct(">I")
# Of a processor's time, for one body. It is not reached: reading is linear. It ends the process
# if that should not hold for something nobody thought of.
MOST_CPU_SECONDS = 20.0


def main() -> None:
    """Answer requests until there are no more."""
    # Who stops the worker gives it time to finish; it needs this process for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each request with what `read_email_text` makes of it."""
    while (content := read_message(requests)) is not None:
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_SECONDS)
        read = read_email_text(**json.loads(content))
        answer = json.dumps({"cleaned_body": read.cleaned_body, "data": read.as_data()}).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_message(answers, answer)


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


if __name__ == "__main__":
    main()
