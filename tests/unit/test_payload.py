"""Checking a payload: what is wrong is named, all of it; what is merely odd is put right."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.json_body import read_json_object
from app.intake.payload import CheckedPayload, InvalidPayloadError, check_payload
from app.models.webhook_schemas import Attachment, ZendeskWebhookEmail

SMALLEST = {"ticket_id": "35436", "from_email": "erika@example.com"}
OPTIONAL_TEXTS = ["from_name", "subject", "body_html", "body_text"]

texts = st.text(st.characters())
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
attachments = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["url", "filename", "content_type", "size", "inline", "\x00"], json_values
    ),
)
# Fields with the right names lead further than arbitrary ones.
payloads = st.dictionaries(texts, json_values, max_size=3) | st.fixed_dictionaries(
    {},
    optional={
        **{field.name: json_values for field in attrs.fields(ZendeskWebhookEmail)},
        "ticket_id": texts | st.integers() | json_values,
        "from_email": texts | json_values,
        "attachments": st.lists(attachments | json_values, max_size=3) | json_values,
        "unknown": json_values,
    },
)


def check(**fields: Any) -> CheckedPayload:
    return check_payload({**SMALLEST, **fields})


def errors_of(fields: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidPayloadError) as caught:
        check_payload(fields)
    return {error.field: error.message for error in caught.value.errors}


def test_ticket_and_sender_are_enough() -> None:
    assert check_payload(SMALLEST) == CheckedPayload(
        email=ZendeskWebhookEmail(
            ticket_id="35436", from_email="erika@example.com", attachments=[]
        ),
        attachment_urls=[],
    )


def test_everything_that_is_sent_is_taken() -> None:
    fields = {
        **SMALLEST,
        "from_name": "Erika Mustermann",
        "subject": "Wo bleibt mein Päckchen? 📦",
        "body_html": "<p>Guten Tag</p>",
        "body_text": "Guten Tag",
        "received_at": "2026-11-23T14:05:09Z",
        "webhook_id": "01HF5Z3V9K8Q2W7X6N4M1B0C5D",
    }
    file = {
        "url": "https://example.com/a.pdf",
        "filename": "a.pdf",
        "content_type": "application/pdf",
        "size": 12345,
    }
    payload = check_payload({**fields, "attachments": [file], "unknown": 1})
    assert payload.email == ZendeskWebhookEmail(**fields, attachments=[Attachment(**file)])
    assert payload.attachment_urls == [file]


def test_every_field_without_which_it_is_no_email_is_named_at_once() -> None:
    errors = errors_of({"ticket_id": True, "from_name": 1, "subject": ["a", "b"]})
    assert errors == {
        "ticket_id": "has to be a string or a number, not a boolean",
        "from_email": "is missing: it has to be sent with a value",
    }


def test_optional_fields_of_odd_types_are_told_and_refuse_nothing() -> None:
    payload = check(
        from_name={"first": "Kim"},
        subject=["a", "b"],
        body_html=True,
        body_text={},
        received_at=[],
        webhook_id={},
        attachments=[5, {"filename": "a.pdf"}],
    )
    assert payload.email == ZendeskWebhookEmail(**SMALLEST, attachments=[])
    assert payload.left_out == [
        "from_name is not taken: it has to be a string, not an object",
        "subject is not taken: it has to be a string, not a list",
        "body_html is not taken: it has to be a string, not a boolean",
        "body_text is not taken: it has to be a string, not an object",
        "received_at is not taken: it has to be a string, not a list",
        "webhook_id is not taken: it has to be a string or a number, not an object",
        "attachments: 2 not taken: no URL was recognised",
    ]


def test_the_text_of_the_error_shows_no_value() -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        check_payload({"ticket_id": " ", "from_email": {"a": "secret content"}})
    for field in ("ticket_id", "from_email"):
        assert field in str(caught.value)
    assert "secret content" not in str(caught.value)


@pytest.mark.parametrize("field", OPTIONAL_TEXTS)
@pytest.mark.parametrize(
    ("value", "text"), [(4711, "4711"), (1.5, "1.5"), (["Hallo"], "Hallo"), ([7], "7")]
)
def test_a_number_or_a_list_of_one_is_a_text(field: str, value: Any, text: str) -> None:
    payload = check(**{field: value})
    assert getattr(payload.email, field) == text
    assert payload.left_out == []


@pytest.mark.parametrize("field", ["ticket_id", "from_email"])
@pytest.mark.parametrize("blank", ["", " ", "\t\n\r", "\u00a0\u2003", "\x00", " \x00 "])
def test_a_required_field_must_not_be_blank(field: str, blank: str) -> None:
    assert errors_of({**SMALLEST, field: blank}) == {
        field: "is blank: it has to be sent with a value"
    }


@pytest.mark.parametrize("field", ["ticket_id", "from_email"])
def test_a_required_field_must_not_be_null_or_missing(field: str) -> None:
    missing = {field: "is missing: it has to be sent with a value"}
    assert errors_of({**SMALLEST, field: None}) == missing
    assert errors_of({name: value for name, value in SMALLEST.items() if name != field}) == missing


@pytest.mark.parametrize("value", [1, 1.5, True, False, [], ["a", "b"], {}, {"a": "b"}])
def test_a_sender_must_be_a_text(value: Any) -> None:
    assert list(errors_of({**SMALLEST, "from_email": value})) == ["from_email"]


@pytest.mark.parametrize("value", [True, False, [], ["1", "2"], {}, {"a": 1}])
def test_a_ticket_must_be_a_text_or_a_number(value: Any) -> None:
    assert list(errors_of({**SMALLEST, "ticket_id": value})) == ["ticket_id"]


@pytest.mark.parametrize("field", ["ticket_id", "webhook_id"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (35436, "35436"),
        (0, "0"),
        (-1, "-1"),
        (35436.0, "35436"),
        (1.5, "1.5"),
        (1e300, str(int(1e300))),
        (10**100, "1" + "0" * 100),
        (" 35436\n", "35436"),
        ("#35436", "#35436"),
        ("35436\x00", "35436"),
    ],
)
def test_an_id_may_be_a_number(field: str, value: Any, text: str) -> None:
    assert getattr(check(**{field: value}).email, field) == text


@pytest.mark.parametrize("field", [*OPTIONAL_TEXTS, "webhook_id", "received_at"])
@pytest.mark.parametrize("blank", [None, "", " ", "\r\n", "\x00"])
def test_a_blank_optional_field_is_as_good_as_none(field: str, blank: str | None) -> None:
    assert getattr(check(**{field: blank}).email, field) is None


@pytest.mark.parametrize("blank", [None, "", "  ", []])
def test_blank_attachments_are_as_good_as_none(blank: Any) -> None:
    assert check(attachments=blank).attachment_urls == []


@pytest.mark.parametrize("value", [0, 1795442709, 1795442709.5, "1795442709", "yesterday"])
def test_a_time_is_taken_as_it_is_spelled(value: Any) -> None:
    assert check(received_at=value).email.received_at == value


def test_the_sender_is_not_checked_for_more_than_being_there() -> None:
    for sender in ("Erika <erika@example.com>", "erika@localhost", "no address at all", "ä@ö.de"):
        assert check(from_email=f" {sender} ").email.from_email == sender


def test_the_whitespace_of_a_body_is_kept() -> None:
    assert check(body_text="  Guten Tag\n\n").email.body_text == "  Guten Tag\n\n"


def test_nul_bytes_are_left_out() -> None:
    email = check(subject="a\x00b", body_text="\x00Guten\x00 Tag\x00").email
    assert (email.subject, email.body_text) == ("ab", "Guten Tag")


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    email = check(subject="a \ud83d b", body_text="\ud83d\udce6 ä \udce6\ud83d").email
    assert email.subject == "a \ufffd b"
    assert email.body_text == "📦 ä \ufffd\ufffd"


@given(payloads)
def test_any_object_is_a_checked_payload_or_named_field_by_field(fields: dict[str, Any]) -> None:
    try:
        payload = check_payload(fields)
    except InvalidPayloadError as error:
        wrong = {problem.field for problem in error.errors}
    else:
        wrong = set()
        assert_storable(payload)
    assert wrong <= {"ticket_id", "from_email"}


@given(payloads)
def test_any_object_that_came_as_bytes_is_checked_likewise(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    try:
        payload = check_payload(read_json_object(body).fields)
    except InvalidPayloadError:
        return
    assert_storable(payload)


def assert_storable(payload: CheckedPayload) -> None:
    """Every text is one that UTF-8 and PostgreSQL carry."""
    email = payload.email
    assert email.ticket_id and email.from_email
    urls = [file["url"] for file in payload.attachment_urls]
    assert [file.url for file in email.attachments or []] == urls
    assert_fit(payload.attachment_urls)
    for value in [*attrs.asdict(email, recurse=False).values(), *urls]:
        if isinstance(value, str):
            assert "\x00" not in value
            assert value.encode().decode() == value
            assert value and not value.isspace()


def assert_fit(value: Any) -> None:
    """Every key and text, at every depth, is one that every reader takes."""
    if isinstance(value, dict):
        assert_fit(list(value))
        assert_fit(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            assert_fit(item)
    elif isinstance(value, str):
        assert "\x00" not in value
        assert value.encode().decode() == value
