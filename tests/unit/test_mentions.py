"""Whether bytes that nobody could read are about a sender or a ticket."""

import gzip
import json
import quopri
from urllib.parse import quote

import pytest

from app.models.erasure import ErasedBy
from app.retention.mentions import is_about

ERIKA = "erika.o'neil+shop@example.com"
ESCAPED = "".join(f"\\u{ord(character):04x}" for character in ERIKA)
BROKEN = '{"ticket_id": "7", "from_email": "%s", "body": "a "b""'


@pytest.mark.parametrize(
    "body",
    [
        (BROKEN % ERIKA).encode(),
        (BROKEN % ERIKA.upper()).encode(),
        (BROKEN % ERIKA.replace("@", "\\u0040")).encode(),
        (BROKEN % ESCAPED).encode(),
        json.dumps(BROKEN % ESCAPED).encode(),
        f'"hello\\n{ERIKA}\\n'.encode(),
        f'"hello \\u003c{ERIKA}\\u003e'.encode(),
        f"from={quote(ERIKA)}&x=1".encode(),
        f"from=%3C{quote(ERIKA, safe='')}%3E".encode(),
        b"From: Erika <" + quopri.encodestring(ERIKA.encode(), quotetabs=True) + b">",
        b"From: Erika =3C" + ERIKA[:9].encode() + b"=\r\n" + ERIKA[9:].encode() + b"=3E",
        ERIKA.replace("@", "&#64;").replace("'", "&#x27;").encode(),
        ERIKA.encode("utf-16"),
        ERIKA.encode("utf-16-le"),
        gzip.compress((BROKEN % ERIKA).encode(), mtime=0),
        json.dumps({"from_email": f"Erika <{ERIKA}>"}).encode(),
        json.dumps({"from_email": "", "body": ERIKA}).encode(),
        json.dumps({"detail": {"requester": ERIKA}}).encode(),
        b"\xff\xfe\xff" + ERIKA.encode() + b"\xff",
    ],
)
def test_an_address_is_found_however_it_is_written(body: bytes) -> None:
    assert is_about(ErasedBy.SENDER, ERIKA, body, "")
    assert not is_about(ErasedBy.SENDER, "x@example.com", body, "")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"from_email": "kim@example.org", "body": f"you wrote, {ERIKA}:"}).encode(),
        (BROKEN % f"x{ERIKA}").encode(),
        (BROKEN % f"{ERIKA}m").encode(),
        (BROKEN % ERIKA.replace(".", "x")).encode(),
        gzip.compress(ERIKA.encode(), mtime=0)[:-12],
        b"",
    ],
)
def test_another_sender_is_not_meant(body: bytes) -> None:
    assert not is_about(ErasedBy.SENDER, ERIKA, body, "")


def test_what_is_kept_besides_the_body_is_searched_too() -> None:
    assert is_about(ErasedBy.SENDER, ERIKA, None, f"from_email: {ERIKA} is no address")


@pytest.mark.parametrize(
    "address", ["jürgen@müller.example", "日本@example.jp", "a\\b@[::1]", "@@"]
)
def test_odd_addresses_are_found(address: str) -> None:
    for body in (address, json.dumps(f"to {address}")[:-1], f"x={quote(address)}&"):
        assert is_about(ErasedBy.SENDER, address, body.encode(), "")


@pytest.mark.parametrize(
    ("body", "is_meant"),
    [
        ('{"ticket_id": "35"}', True),
        ('{"ticket_id": 35}', True),
        ('{"detail": {"id": "35"}}', True),
        ('{"ticket_id": "35", broken', True),
        ('{"ticket_id": 35, broken', True),
        ('{"ticket_id": "354"}', False),
        ('{"ticket_id": "354", broken', False),
        ('{"ticket_id": "7", "body": "ticket_id: 35"}', False),
        ("[" * 100_000, False),
    ],
)
def test_a_ticket_is_found_by_its_field(body: str, is_meant: bool) -> None:
    assert is_about(ErasedBy.TICKET, "35", body.encode(), "") is is_meant
