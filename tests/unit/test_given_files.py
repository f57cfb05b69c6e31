"""Names that strangers gave, parts that are asked for, and reading within a limit."""

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.attachments.given import (
    Attachment,
    Attachments,
    LargerThanLimitError,
    NotKeptError,
)
from app.attachments.names import LONGEST_NAME, content_disposition, safe_name
from app.http.ranges import NoSuchPartError, Part, asked_part, is_known, is_same
from app.models.email_attachment import AttachmentState


@pytest.mark.parametrize(
    ("given_name", "safe"),
    [
        ("rechnung.pdf", "rechnung.pdf"),
        ("Rechnung März 📦.pdf", "Rechnung März 📦.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\e\\a.doc", "a.doc"),
        ("..", "attachment-3"),
        ("a/", "attachment-3"),
        ("", "attachment-3"),
        (None, "attachment-3"),
        (" .hidden ", "hidden"),
        ("a\x00b\r\nSet-Cookie: x.txt", "abSet-Cookie_ x.txt"),
        ("fdp\u202efdp.exe", "fdpfdp.exe"),
        ('a"b<c>.txt', "a_b_c_.txt"),
        ("ä" * 300 + ".pdf", "ä" * 98 + ".pdf"),
    ],
)
def test_a_name_is_made_safe(given_name: str | None, safe: str) -> None:
    assert safe_name(given_name, 3) == safe


@given(st.none() | st.text())
def test_any_name_is_made_safe_and_makes_a_header(given_name: str | None) -> None:
    name = safe_name(given_name, 0)
    assert name
    assert not set(name) & set('/\\"\r\n\x00')
    assert name not in (".", "..")
    assert len(name.encode()) <= LONGEST_NAME
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (None, None),
        ("bytes=0-4", Part(0, 5)),
        ("bytes=5-", Part(5, 10)),
        ("bytes=-3", Part(7, 10)),
        ("bytes=-30", Part(0, 10)),
        ("bytes=8-100", Part(8, 10)),
        ("bytes=4-2", None),
        ("bytes=0-1,4-5", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=" + "9" * 100 + "-", None),
    ],
)
def test_the_part_that_is_asked_for(value: str | None, part: Part | None) -> None:
    assert asked_part(value, 10) == part


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_part_behind_the_end_does_not_exist(value: str) -> None:
    with pytest.raises(NoSuchPartError, match="there are 10 bytes"):
        asked_part(value, 10)


def test_versions_are_compared() -> None:
    assert is_known('"a"', '"a"')
    assert is_known('W/"a"', '"a"')
    assert is_known('"b", "a"', '"a"')
    assert is_known("*", '"a"')
    assert not is_known('"b"', '"a"')
    assert not is_known(None, '"a"')
    assert is_same(None, '"a"')
    assert is_same('"a"', '"a"')
    assert not is_same('W/"a"', '"a"')
    assert not is_same("Thu, 26 Nov 2026 07:00:00 GMT", '"a"')


def file(content: bytes, **fields: object) -> Attachment:
    async def read(start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        for at in range(start, len(content) if end is None else end, 10):
            yield content[at : at + 10]

    known = {"size": len(content), **fields}
    return Attachment(
        position=0,
        filename="a.txt",
        state=AttachmentState.KEPT,
        read_bytes=read,
        **known,  # type: ignore[arg-type]
    )


async def test_a_file_is_read_within_a_limit_whatever_its_size_is_said_to_be() -> None:
    content = bytes(100)
    assert await file(content).read() == content
    assert await file(content).read(limit=100) == content
    for size in (100, 5, None):
        with pytest.raises(LargerThanLimitError, match="stream it by open"):
            await file(content, size=size).read(limit=99)


async def test_what_is_not_kept_says_why_when_it_is_read() -> None:
    lost = Attachment(
        position=2, filename=None, state=AttachmentState.FAILED, reason="gone", detail="404."
    )
    with pytest.raises(NotKeptError, match=r"attachment 2 is not kept: .* not there .* 404\."):
        lost.open()
    with pytest.raises(NotKeptError):
        await lost.read()
    assert lost.safe_name == "attachment-2"


async def test_the_files_of_an_email_are_asked_for_once() -> None:
    asked = 0

    async def load() -> list[Attachment]:
        nonlocal asked
        asked += 1
        return [file(b"1"), Attachment(position=1, filename="b", state=AttachmentState.PENDING)]

    files = Attachments(load)
    assert asked == 0
    assert [one.position async for one in files] == [0, 1]
    assert [one.filename for one in await files.kept()] == ["a.txt"]
    assert len(await files.all()) == 2
    assert asked == 1
