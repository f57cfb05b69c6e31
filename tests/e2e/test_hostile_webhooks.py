"""Webhooks that Zendesk signed, and that hold whatever bytes may hold: each ends as an email or in
the quarantine, and never in neither."""

import json
from typing import Any

import httpx
import psycopg
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import Services, signed

from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import SIGNATURE_HEADER

FIELDS = (
    *("ticket_id", "from_email", "from_name", "subject", "body_html", "body_text"),
    *("received_at", "webhook_id", "attachments"),
)
PIECES = (
    *(
        "\x00",
        "\x01",
        " ",
        "\n",
        "\t",
        "[",
        "]",
        "{",
        "}",
        '"',
        "\\",
        ",",
        ":",
        "<a href=",
        "a.pdf",
    ),
    *("https://", "http://[", "@", "\ud800", "\udc00", "é", "📦", "\u2028", "1", "9" * 400, "-"),
    *("1e999", "null", "{{ticket.id}}", "=41", "url+%25", "2026-11-24T09:00:00Z", "+14:00"),
)
texts = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["url", "filename", "size"]) | texts, inner, max_size=3)
    ),
    max_leaves=6,
)
triggers = st.fixed_dictionaries(
    {"ticket_id": st.just("4711") | values, "from_email": st.just("kim@example.org") | values},
    optional=dict.fromkeys((*FIELDS[2:], "text_encoding", "note"), values),
)
events = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["created", "comment_added", "attachment_linked_to_comment"]).map(
            "zen:event-type:ticket.{}".format
        ),
        "detail": st.fixed_dictionaries(
            {"id": st.just("4711") | values},
            optional=dict.fromkeys(("via", "subject", "description", "created_at"), values),
        ),
        "event": st.fixed_dictionaries(
            {},
            optional={
                "comment": st.dictionaries(
                    st.sampled_from(["id", "via", "author", "body", "html_body", "attachment"]),
                    values,
                )
            },
        ),
    },
    optional=dict.fromkeys(("id", "account_id", "time"), values),
)
# As a template may break them: bytes that are not escaped, or that are missing.
breaks = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 2),
        st.sampled_from(
            [b"", b"\x00", b"\x1f", b'"', b"\\", b",", b"}", b"\n", b"\xff", b"\xed\xa0\x80"]
        ),
    ),
    max_size=3,
)


def write(payload: dict[str, Any], changes: list[tuple[int, int, bytes]], is_ascii: bool) -> bytes:
    body = json.dumps(payload, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    for place, removed, put in changes:
        body = body[:place] + put + body[place + removed :]
    return body


bodies = st.builds(write, triggers | events, st.just([]) | breaks, st.booleans())


def find(services: Services, signature: str) -> tuple[bool, bool]:
    """Whether it is an email, and whether it is in the quarantine."""
    with psycopg.connect(services.environment["DATABASE_URL"]) as connection:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM incoming_emails WHERE delivery_signature = %(signature)s),"
            " EXISTS (SELECT FROM quarantined_webhooks WHERE headers ->> %(name)s = %(signature)s)",
            {"signature": signature, "name": SIGNATURE_HEADER},
        ).fetchone()
    assert found is not None
    return bool(found[0]), bool(found[1])


@settings(max_examples=150)
@given(bodies)
@example(b'{"ticket_id": "1", "from_email": "kim@example.org", "attachments": " \\u0000 "}')
@example(
    b'{"ticket_id": "1", "from_email": "\x00im@example.org", "subject": "a "b"", "x": "c"}\xff'
)
def test_whatever_zendesk_signed_is_an_email_or_in_the_quarantine(
    shared_web: Services, body: bytes
) -> None:
    delivery = signed(body)
    answer = httpx.post(shared_web.url + WEBHOOK_PATH, timeout=60, **delivery)
    is_email, is_kept = find(shared_web, delivery["headers"][SIGNATURE_HEADER])
    match answer.status_code:
        case 200 if answer.json()["status"] == "accepted":
            assert is_email
        case 200:
            # An event that is no email, or the same content a second time.
            assert answer.json()["status"] in ("acknowledged", "duplicate")
        case status:
            # A 503 would mean that Mailroom fails on it, and is kept for that as well.
            assert (status, is_kept) == (400, True)
