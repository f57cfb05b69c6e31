"""The row of an email: the keys that find its duplicates, and values that fit their columns."""

import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.email_row import EmailRow, as_json_string, make_row
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload
from app.telemetry.request_id import uuid7

NOW = datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "ticket_id": "35436",
    "from_email": "erika@example.com",
    "from_name": "Erika Mustermann",
    "subject": "Wo bleibt mein Päckchen?",
    "body_html": "<p>Guten Tag</p>",
    "body_text": "Guten Tag",
}
COLUMNS = {
    "ticket_id": ("zendesk_ticket_id", 64),
    "webhook_id": ("zendesk_webhook_id", 255),
    "from_email": ("from_email", 320),
    "from_name": ("from_name", 255),
    "subject": ("subject", 998),
}


def row_of_bytes(
    body: bytes, *, invocation_id: str | None = None, signature: str | None = None
) -> EmailRow:
    json_body = read_json_object(body)
    return make_row(
        body,
        json_body,
        check_payload(json_body.fields),
        email_id=uuid7(),
        invocation_id=invocation_id,
        signature=signature,
        now=NOW,
    )


def row_of(
    *, invocation_id: str | None = None, signature: str | None = None, **fields: Any
) -> EmailRow:
    """The row of the usual email in which some fields are changed; None leaves one out."""
    sent = {name: value for name, value in {**FIELDS, **fields}.items() if value is not None}
    return row_of_bytes(json.dumps(sent).encode(), invocation_id=invocation_id, signature=signature)


def key_of(**changes: Any) -> str | None:
    return row_of(**changes).idempotency_key


def test_a_row_holds_what_was_sent() -> None:
    row = row_of(webhook_id="w1", received_at="2026-11-03T13:04:05Z", signature="signed")
    assert row.zendesk_ticket_id == "35436"
    assert row.zendesk_webhook_id == "w1"
    assert row.from_email == "erika@example.com"
    assert row.from_name == "Erika Mustermann"
    assert row.subject == "Wo bleibt mein Päckchen?"
    assert row.raw_body_html == "<p>Guten Tag</p>"
    assert row.raw_body_text == "Guten Tag"
    assert row.received_at == datetime(2026, 11, 3, 13, 4, 5, tzinfo=UTC)
    assert row.delivery_signature == "signed"
    assert row.attachment_urls is None


def test_what_is_left_out_is_null_and_the_subject_empty() -> None:
    row = row_of_bytes(b'{"ticket_id": 1, "from_email": "a@example.com"}')
    assert (row.from_name, row.raw_body_html, row.raw_body_text) == (None, None, None)
    assert (row.zendesk_webhook_id, row.idempotency_key, row.delivery_signature) == (None,) * 3
    assert row.subject == ""
    assert row.received_at == NOW


@pytest.mark.parametrize("ids", [{"webhook_id": "w1"}, {"invocation_id": "i1"}])
def test_the_same_delivery_has_the_same_key(ids: dict[str, str]) -> None:
    first, second = row_of(**ids), row_of(**ids)
    assert first.idempotency_key == second.idempotency_key
    assert first.idempotency_key is not None
    assert len(first.idempotency_key) == 64
    assert first.id != second.id


def test_a_key_stays_the_same_from_release_to_release() -> None:
    """An email may be delivered again after an upgrade: changing how keys are made makes it two.

    SHA-256 over each part behind its length as 8 bytes: "webhook_id", "w1", and the content.
    """
    assert key_of(webhook_id="w1") == (
        "7216ee4ac5a70ae5ca6d12e83965fdfff379b922a2332fd2aab737e6756c46d1"
    )


@pytest.mark.parametrize("ids", [{"webhook_id": "w1"}, {"invocation_id": "i1"}])
@pytest.mark.parametrize(
    "change",
    [
        {"ticket_id": "35437"},
        {"from_email": "max@example.com"},
        {"subject": "Noch eine Frage"},
        {"body_html": "<p>Guten Abend</p>"},
        {"body_text": "Guten Abend"},
        {"subject": None},
        {"body_html": None},
        {"body_text": None},
    ],
)
def test_the_same_id_with_other_content_is_another_email(
    ids: dict[str, str], change: dict[str, str]
) -> None:
    assert key_of(**ids, **change) != key_of(**ids)


def test_another_id_with_the_same_content_is_another_email() -> None:
    keys = {
        key_of(webhook_id="1"),
        key_of(webhook_id="2"),
        key_of(invocation_id="1"),
        key_of(invocation_id="2"),
    }
    assert len(keys) == 4


def test_without_an_id_there_is_no_key() -> None:
    assert key_of() is None
    assert key_of(invocation_id="") is None
    assert key_of(webhook_id=" ") is None


def test_the_id_of_the_payload_counts_before_that_of_the_invocation() -> None:
    assert key_of(webhook_id="w1", invocation_id="i1") == key_of(webhook_id="w1")
    assert key_of(webhook_id="w1", invocation_id="i2") == key_of(webhook_id="w1")


def test_a_redelivery_may_spell_the_same_email_otherwise() -> None:
    assert key_of(webhook_id=7, ticket_id=35436) == key_of(webhook_id="7", ticket_id=" 35436 ")
    assert key_of(webhook_id="w1", from_name="Erika M.") == key_of(webhook_id="w1")
    assert key_of(webhook_id="w1", received_at="2026-11-03") == key_of(webhook_id="w1")


def test_content_that_differs_only_beyond_the_column_is_other_content() -> None:
    long = "a" * 2_000
    assert key_of(webhook_id="w1", subject=long + "b") != key_of(webhook_id="w1", subject=long)


@given(st.text("abc", max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_moving_text_from_one_field_to_the_next_changes_the_key(
    text: str, one: int, other: int
) -> None:
    def key(at: int) -> str | None:
        return key_of(webhook_id="w1", body_html=text[:at] or None, body_text=text[at:] or None)

    assert (key(one) == key(other)) == (text[:one] == text[:other])


@pytest.mark.parametrize("field", COLUMNS)
def test_what_is_too_long_is_cut_in_its_column_and_whole_in_the_payload(field: str) -> None:
    column, length = COLUMNS[field]
    for text in ("ä" * length, "ä" * (length + 1), "📦" * 5_000):
        row = row_of(**{field: text})
        assert getattr(row, column) == text[:length]
        assert json.loads(row.raw_payload)[field] == text


def test_a_number_too_long_for_its_column_is_cut_too() -> None:
    row = row_of_bytes(b'{"ticket_id": %b, "from_email": "a@example.com"}' % (b"9" * 5_000))
    assert row.zendesk_ticket_id == "9" * 64


def test_a_body_is_never_cut() -> None:
    text = "Guten Tag " * 500_000
    row = row_of(body_html=text, body_text=text)
    assert row.raw_body_html == row.raw_body_text == text


def test_attachments_are_stored_with_all_their_keys() -> None:
    row = row_of(attachments=[{"url": "https://example.com/ä.pdf", "size": "7", "inline": True}])
    assert row.attachment_urls is not None
    assert json.loads(row.attachment_urls) == [
        {
            "url": "https://example.com/ä.pdf",
            "size": 7,
            "inline": True,
            "filename": None,
            "content_type": None,
        }
    ]


def test_an_attachment_with_a_deep_key_keeps_the_keys_that_matter() -> None:
    deep = b"[" * 900 + b"]" * 900
    body = (
        b'{"ticket_id": 1, "from_email": "a@example.com", '
        b'"attachments": [{"url": "https://example.com/a", "size": 7, "deep": %b}]}' % deep
    )
    row = row_of_bytes(body)
    assert row.attachment_urls is not None
    (file,) = json.loads(row.attachment_urls)
    assert (file["url"], file["size"]) == ("https://example.com/a", 7)
    assert row.raw_payload == body.decode()


def test_what_is_not_taken_is_told_in_the_story() -> None:
    told = json.loads(row_of(subject=["a", "b"], attachments="a.pdf").attempt_errors)
    assert [entry["attempt"] for entry in told] == [0, 0]
    assert [entry["error"].split()[0] for entry in told] == ["subject", "attachments:"]
    assert json.loads(row_of().attempt_errors) == []


def test_the_payload_is_stored_to_the_letter() -> None:
    body = b'{"ticket_id": 1,  "ticket_id":2, "from_email":"a@example.com", "n": 1.50, "\\u00e4":0}'
    assert row_of_bytes(body).raw_payload == body.decode()


@pytest.mark.parametrize(
    "odd",
    [
        b'"\\ud800"',
        b'"\\u0000"',
        b"1e400",
        b'"a\nb"',
        b'"a\x00b"',
        b"9" * 5_000,
        # Deeper than the readers of any Python go.
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_a_payload_that_postgresql_may_refuse_is_stored_as_a_json_string(odd: bytes) -> None:
    body = b'{"ticket_id": 1, "from_email": "a@example.com", "odd": %b}' % odd
    assert json.loads(row_of_bytes(body).raw_payload) == body.decode().replace("\x00", "\\x00")


@given(st.binary())
def test_any_bytes_can_be_a_json_string(body: bytes) -> None:
    text = as_json_string(body)
    assert text.isascii()
    assert "\x00" not in json.loads(text)
    assert json.loads(text) == body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")


def test_an_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000
    assert UUID(str(made)) == made
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before <= made.int >> 80 <= after


def test_ids_are_sorted_by_time_and_never_the_same() -> None:
    made = [uuid7() for _ in range(2_000)]
    times = [one.int >> 80 for one in made]
    assert times == sorted(times)
    assert len(set(made)) == len(made)
