"""Zendesk's signature: what proves that a webhook is Zendesk's, and everything that does not."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.signature import SignatureRefusedError, sign, verify
from app.setting_groups.secrets import parse_secrets

NOW = datetime(2026, 11, 23, 14, 5, 9, tzinfo=UTC)
TIMESTAMP = "2026-11-23T14:05:09Z"
BODY = '{"ticket_id": "35436", "subject": "Päckchen"}'.encode()
SECRET = "dGhlIHNlY3JldCBvZiB0aGUgd2ViaG9vaw=="
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

secret_texts = st.text(
    st.characters(exclude_characters=",:", exclude_categories=("Cs", "Cc", "Z")), min_size=1
)


def check(**changes: Any) -> str:
    """Verify a good signature in which some parts are changed."""
    given = {
        "signature": sign(SECRET, TIMESTAMP, BODY),
        "timestamp": TIMESTAMP,
        "body": BODY,
        "secrets": parse_secrets(SECRET),
        "max_age_seconds": 60,
        "now": NOW,
    }
    return verify(**{**given, **changes})


def signed_at(timestamp: str) -> dict[str, str]:
    return {"timestamp": timestamp, "signature": sign(SECRET, timestamp, BODY)}


def test_a_signature_is_the_hmac_over_timestamp_and_body_with_the_secret_as_text() -> None:
    digest = hmac.new(SECRET.encode(), TIMESTAMP.encode() + BODY, hashlib.sha256).digest()
    assert sign(SECRET, TIMESTAMP, BODY) == base64.b64encode(digest).decode()


def test_a_signature_made_by_another_program_is_accepted() -> None:
    """Made by `printf '%s%s' "$TIMESTAMP" "$BODY" | openssl dgst -sha256 -hmac "$SECRET" -binary |
    base64`, with the secret that Zendesk signs its test webhooks with."""
    label = verify(
        signature="y9gOnFFwlMu0aTsuxNi9B7V4WQ6w8SIJfgCbG94PGO8=",
        timestamp="2021-03-25T05:09:27Z",
        body=b'{"hello":"world"}',
        secrets=parse_secrets("zendesk:dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ=="),
        max_age_seconds=60,
        now=datetime(2021, 3, 25, 5, 9, 27, tzinfo=UTC),
    )
    assert label == "zendesk"


def test_an_empty_body_can_be_signed() -> None:
    assert check(body=b"", signature=sign(SECRET, TIMESTAMP, b"")) == "secret-1"


@given(body=st.binary(max_size=400), secret=secret_texts)
def test_any_signed_body_verifies(body: bytes, secret: str) -> None:
    assert check(
        body=body, secrets=parse_secrets(secret), signature=sign(secret, TIMESTAMP, body)
    ) == ("secret-1")


@given(body=st.binary(min_size=1, max_size=400), data=st.data())
def test_one_changed_bit_of_the_body_is_noticed(body: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, 8 * len(body) - 1))
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureRefusedError) as refused:
        check(body=bytes(changed), signature=sign(SECRET, TIMESTAMP, body))
    assert refused.value.status == 401


@given(st.integers(0, 8 * 32 - 1))
def test_one_changed_bit_of_the_signature_is_noticed(bit: int) -> None:
    changed = bytearray(base64.b64decode(sign(SECRET, TIMESTAMP, BODY)))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureRefusedError):
        check(signature=base64.b64encode(changed).decode())


@given(st.integers(0, len(TIMESTAMP) - 1), st.characters(codec="latin-1"))
def test_one_changed_character_of_the_timestamp_is_noticed(at: int, character: str) -> None:
    changed = TIMESTAMP[:at] + character + TIMESTAMP[at + 1 :]
    if changed == TIMESTAMP:
        assert check(timestamp=changed) == "secret-1"
    else:
        with pytest.raises(SignatureRefusedError):
            check(timestamp=changed)


@given(
    st.none() | st.text(max_size=100), st.none() | st.text(max_size=100), st.binary(max_size=100)
)
def test_whatever_the_headers_hold_it_is_refused_and_nothing_else_happens(
    signature: str | None, timestamp: str | None, body: bytes
) -> None:
    with pytest.raises(SignatureRefusedError):
        check(signature=signature, timestamp=timestamp, body=body)


@pytest.mark.parametrize("secret", ["another secret", SECRET.lower(), SECRET + "x", ""])
def test_a_signature_by_another_secret_is_refused(secret: str) -> None:
    with pytest.raises(SignatureRefusedError, match="MAILROOM_WEBHOOK_SECRETS"):
        check(signature=sign(secret, TIMESTAMP, BODY))


def test_the_secret_is_not_decoded_although_it_looks_like_base64() -> None:
    decoded = base64.b64decode(SECRET)
    digest = hmac.digest(decoded, TIMESTAMP.encode() + BODY, hashlib.sha256)
    with pytest.raises(SignatureRefusedError):
        check(signature=base64.b64encode(digest).decode())


def test_nothing_is_accepted_without_any_secret() -> None:
    with pytest.raises(SignatureRefusedError):
        check(secrets=())


def test_each_of_several_secrets_is_accepted_and_its_label_told() -> None:
    secrets = parse_secrets("blue:one,green:two,three")
    for secret, label in [("one", "blue"), ("two", "green"), ("three", "secret-3")]:
        assert check(secrets=secrets, signature=sign(secret, TIMESTAMP, BODY)) == label


def test_a_secret_is_rotated_without_refusing_anything() -> None:
    by_old, by_new = (sign(secret, TIMESTAMP, BODY) for secret in ("old", "new"))
    during = parse_secrets("2025:old,2026:new")
    assert check(secrets=during, signature=by_old) == "2025"
    assert check(secrets=during, signature=by_new) == "2026"
    after = parse_secrets("2026:new")
    assert check(secrets=after, signature=by_new) == "2026"
    with pytest.raises(SignatureRefusedError):
        check(secrets=after, signature=by_old)


@pytest.mark.parametrize(
    "missing",
    [
        {"signature": None},
        {"timestamp": None},
        {"signature": None, "timestamp": None},
        {"signature": ""},
        {"timestamp": ""},
    ],
)
def test_both_headers_are_needed(missing: dict[str, None]) -> None:
    with pytest.raises(SignatureRefusedError, match="X-Zendesk-Webhook-Signature-Timestamp"):
        check(**missing)


def spellings_that_are_not_base64(signature: str) -> list[str]:
    return [
        signature + "\n",
        " " + signature,
        signature[:20] + " " + signature[20:],
        signature[:-1],
        signature + "=",
        signature + signature,
        signature.replace("=", ""),
        "=" + signature[:-1],
        signature[:-2] + "!=",
        signature + "ä",
        "\ud800",
        "sha256=" + signature,
        base64.b64decode(signature).hex(),
    ]


@pytest.mark.parametrize("number", range(13))
def test_a_signature_in_anything_but_plain_base64_is_refused(number: int) -> None:
    signature = spellings_that_are_not_base64(sign(SECRET, TIMESTAMP, BODY))[number]
    with pytest.raises(SignatureRefusedError):
        check(signature=signature)


def test_a_signature_has_one_spelling_only() -> None:
    """The last letter carries two bits that mean nothing. A replay that changes them would not be
    recognised by its signature."""
    signature = sign(SECRET, TIMESTAMP, BODY)
    accepted = []
    for letter in BASE64:
        other = f"{signature[:-2]}{letter}="
        try:
            check(signature=other)
        except SignatureRefusedError:
            continue
        accepted.append(other)
    assert accepted == [signature]


@pytest.mark.parametrize("signature", ["ÄÖÜ", "é" * 44, "\xff", "日本語"])
def test_a_signature_that_is_not_ascii_is_refused(signature: str) -> None:
    with pytest.raises(SignatureRefusedError, match="base64"):
        check(signature=signature)


@pytest.mark.parametrize("timestamp", ["23. März 2026", "\xff", "日本語", "\ud800"])
def test_a_timestamp_that_is_not_ascii_is_refused(timestamp: str) -> None:
    with pytest.raises(SignatureRefusedError):
        check(timestamp=timestamp)


@pytest.mark.parametrize(
    "timestamp",
    [
        "now",
        "1774247109",
        "1774247109.5",
        "Mon, 23 Nov 2026 14:05:09 GMT",
        "2026-11-23T25:05:09Z",
        "2026-02-30T14:05:09Z",
        "2026-11-23T14:05:09+99:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2" * 10_000,
    ],
)
def test_a_signed_timestamp_that_is_not_a_time_is_refused_and_explained(timestamp: str) -> None:
    with pytest.raises(SignatureRefusedError, match="ISO 8601"):
        check(**signed_at(timestamp))


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-23T14:05:09Z",
        "2026-11-23T14:05:09",
        "2026-11-23T14:05:09.1Z",
        "2026-11-23T14:05:09.123Z",
        "2026-11-23T14:05:09.123456789Z",
        "2026-11-23T15:05:09+01:00",
        "2026-11-23T03:35:09-10:30",
        "2026-11-23 14:05:09+00:00",
        "20261123T140509Z",
    ],
)
def test_every_iso_8601_spelling_of_now_is_accepted(timestamp: str) -> None:
    assert check(**signed_at(timestamp)) == "secret-1"


@pytest.mark.parametrize("direction", [-1, 1])
def test_the_age_limit_holds_in_both_directions_to_the_second(direction: int) -> None:
    at_the_limit = (NOW + direction * timedelta(seconds=60)).isoformat()
    beyond = (NOW + direction * timedelta(seconds=61)).isoformat()
    assert check(**signed_at(at_the_limit)) == "secret-1"
    with pytest.raises(SignatureRefusedError, match=r"61 seconds .* 60 are allowed"):
        check(**signed_at(beyond))


def test_what_nobody_signed_is_told_nothing_of_its_age() -> None:
    with pytest.raises(SignatureRefusedError, match="none of the active secrets"):
        check(timestamp="1999-01-01T00:00:00Z")


def test_a_refusal_shows_neither_secret_nor_the_right_signature() -> None:
    for changes in (
        {"body": b"x"},
        {"signature": "!"},
        {"signature": None},
        signed_at("never"),
        signed_at("1999-01-01T00:00:00Z"),
    ):
        with pytest.raises(SignatureRefusedError) as caught:
            check(**changes)
        assert SECRET not in str(caught.value)
        right = sign(SECRET, changes.get("timestamp", TIMESTAMP), changes.get("body", BODY))
        assert right not in str(caught.value)
