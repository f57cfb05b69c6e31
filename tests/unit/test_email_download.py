"""An email is saved as a message whatever its sender wrote where."""

import asyncio
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from typing import Any
from uuid import uuid4

import pytest

from app.attachments.given import in_memory
from app.desk.email_download import make_message

ROW: dict[str, Any] = {
    "subject": "Where is it?",
    "from_name": "Erika",
    "from_email": "erika@example.com",
    "received_at": datetime(2026, 11, 3, 14, 5, tzinfo=UTC),
    "zendesk_ticket_id": "35436",
    "raw_body_text": "Hello",
    "raw_body_html": None,
}
NOT_UTF_8 = "=?utf-8?b?/w==?="


@pytest.mark.parametrize(
    ("columns", "header", "told"),
    [
        ({}, "From", "Erika <erika@example.com>"),
        ({"from_email": "erika@[192.168.0.1"}, "From", "erika@[192.168.0.1"),
        ({"from_email": "]@["}, "From", '"]@["'),
        ({"from_email": "\ud7ff,("}, "From", "\ud7ff,("),
        ({"from_email": f"{'x' * 100}()example.com"}, "From", "example.com"),
        ({"from_name": f"{NOT_UTF_8},"}, "From", "<erika@example.com>"),
        ({"subject": f"ä {NOT_UTF_8}"}, "Subject", "ä = ?utf-8?b?/w== ?="),
        ({"zendesk_ticket_id": f"ä {NOT_UTF_8}"}, "X-Zendesk-Ticket", "ä = ?utf-8?b?/w== ?="),
    ],
)
async def test_what_cannot_stand_in_a_header_is_told_otherwise(
    columns: dict[str, str], header: str, told: str
) -> None:
    content = await make_message({**ROW, "id": uuid4(), **columns}, [])
    message = message_from_bytes(content, policy=default)
    assert told in message[header]
    assert message.get_content().strip() == "Hello"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("message/delivery-status", "application/octet-stream"),
        ("message/rfc822", "application/octet-stream"),
        ("message/x-other", "application/octet-stream"),
        ("multipart/mixed", "application/octet-stream"),
        ("text/html", "text/html"),
        ("image/png", "image/png"),
    ],
)
async def test_a_file_of_any_type_is_attached_as_the_bytes_that_it_is(kind: str, told: str) -> None:
    content = b"Reporting-MTA: dns; example.org\n\n\xff"
    file = in_memory(0, "one", content, content_type=kind)
    written = await make_message({**ROW, "id": uuid4()}, [file])
    (part,) = message_from_bytes(written, policy=default).iter_attachments()
    assert part.get_content_type() == told
    assert part.get_filename() == "one"
    assert part.get_payload(decode=True) == content


async def test_other_tasks_go_on_while_a_message_is_written() -> None:
    seen = asyncio.Event()
    asyncio.get_running_loop().call_soon(seen.set)
    # Of one that is written before it is waited for, Python 3.14 has the result at once.
    await make_message(
        {**ROW, "id": uuid4()}, [in_memory(0, "one", bytes(4_000_000), content_type="")]
    )
    assert seen.is_set()
