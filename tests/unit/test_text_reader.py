"""Long bodies are read in a process that can be ended, and that ends with its parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO

import psutil
import pytest

from app.text.answering import serve, write_message
from app.text.email_text import read_email_text
from app.text.reader import ReaderProcess, TextReaderError, read_text
from app.text.reader_process import answer

NO_FIELDS = {"text": "", "subject": "", "sender": "", "headers": {}}
HOSTILE = "<div><a href=x>" * 130_000
WAIT_SECONDS = 60

PARENT = """
import asyncio
from app.text.reader import ReaderProcess

async def main():
    reader = ReaderProcess("test")
    await reader.read({"html": "<p>Hello</p>"})
    print(reader.process_id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def reader() -> Iterator[ReaderProcess]:
    reader = ReaderProcess("test")
    yield reader
    reader.end()


def is_gone(process_id: int) -> bool:
    try:
        psutil.Process(process_id).wait(WAIT_SECONDS)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


async def started(reader: ReaderProcess) -> int:
    def wait() -> int:
        while reader.process_id is None:
            time.sleep(0.01)
        return reader.process_id

    return await asyncio.to_thread(wait)


async def test_the_process_answers_one_body_after_another(
    reader: ReaderProcess,
) -> None:
    reads = [reader.read({"html": f"<p>Hello {number}</p>"}) for number in range(5)]
    assert [read.cleaned_body for read in await asyncio.gather(*reads)] == [
        f"Hello {number}" for number in range(5)
    ]


async def test_a_cancelled_read_ends_its_process_and_the_next_one_has_a_fresh_one(
    reader: ReaderProcess,
) -> None:
    task = asyncio.create_task(reader.read({"html": HOSTILE * 4}))
    process_id = await started(reader)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(is_gone, process_id)
    assert (await reader.read({"html": "<p>Next</p>"})).cleaned_body == "Next"
    assert reader.process_id != process_id


async def test_a_read_that_waits_can_be_cancelled_without_harm_to_the_one_before(
    reader: ReaderProcess,
) -> None:
    first = asyncio.create_task(reader.read({"html": "<p>First</p>"}))
    second = asyncio.create_task(reader.read({"html": "<p>Second</p>"}))
    await started(reader)
    second.cancel()
    assert (await first).cleaned_body == "First"


async def test_a_process_that_dies_over_a_body_is_told_and_replaced(
    reader: ReaderProcess,
) -> None:
    task = asyncio.create_task(reader.read({"html": HOSTILE * 4}))
    os.kill(await started(reader), signal.SIGKILL)
    with pytest.raises(TextReaderError, match="ended over this one") as told:
        await task
    assert not told.value.is_final
    assert (await reader.read({"html": "<p>Next</p>"})).cleaned_body == "Next"


async def test_a_process_that_used_up_its_time_is_told_as_final(
    reader: ReaderProcess,
) -> None:
    task = asyncio.create_task(reader.read({"html": HOSTILE * 4}))
    # What its timer sends; by then the process is started, but may not have set it.
    os.kill(await started(reader), signal.SIGPROF)
    with pytest.raises(TextReaderError, match="of a processor") as told:
        await task
    assert told.value.is_final


async def test_lines_that_nearly_separate_emails_are_read_within_the_time_for_a_body(
    reader: ReaderProcess,
) -> None:
    # As many as would take twice that time with a pattern that reads a line in several ways.
    body = "\n".join(["*" * 50 + "a" + "-" * 50 + "*" * 97 + "x"] * 500)
    assert (await reader.read({"text": body})).cleaned_body == body


@pytest.mark.parametrize(
    "separator",
    [
        "-----Original Message-----",
        "***** Original Message *****",
        "* -- Original Message -- *",
        "** *** Original Message ***",
    ],
)
def test_words_between_dashes_separate_emails(separator: str) -> None:
    read = read_email_text(text=f"Hello\n\n{separator}\nFrom: Kim\n\nOld")
    assert read.cleaned_body == "Hello"


def test_the_process_does_not_outlive_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        process_id = int(parent.stdout.readline())
        assert psutil.pid_exists(process_id)
    finally:
        parent.kill()
        parent.wait()
    assert is_gone(process_id)


async def test_short_bodies_are_read_without_another_process() -> None:
    read = await read_text(html="<p>Short</p>", **NO_FIELDS)  # type: ignore[arg-type]
    assert read.cleaned_body == "Short"
    assert read.data["kind"] == "message"


async def test_a_long_text_body_is_read_like_a_short_one() -> None:
    lines = "\n".join(f"Line {number} of it." for number in range(2_000))
    for body in (lines, "Short."):
        read = await read_text(html="", **{**NO_FIELDS, "text": f"{body}\n\n-- \nKim"})  # type: ignore[arg-type]
        assert (read.cleaned_body, read.data["signature"]) == (body, "-- \nKim")


def test_a_cut_off_request_is_the_end() -> None:
    whole = BytesIO()
    write_message(whole, b'{"text": "Hello"}')
    cut = BytesIO(whole.getvalue()[:-3])
    answers = BytesIO()
    serve(cut, answers, answer, most_cpu_seconds=20.0)
    assert answers.getvalue() == b""
