"""Refused webhooks are kept, verified again when asked, and never fill the disk."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from support import SECRET, Services, email, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def web_settings() -> dict[str, str]:
    return {"MAILROOM_MAX_BODY_BYTES": "2000"}


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """For those who share a web process that which it has."""
    if "web" not in request.fixturenames:
        return database_url
    shared: str = request.getfixturevalue("shared_database_url")
    return shared


def post(services: Services, arguments: dict[str, Any]) -> httpx.Response:
    return httpx.post(services.url + WEBHOOK_PATH, **arguments)


def kept(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT * FROM quarantined_webhooks ORDER BY id").fetchall()


def stored(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT * FROM incoming_emails ORDER BY id").fetchall()


def test_a_night_under_a_wrong_secret_is_admitted_once_it_is_mended(
    services: Services, connection: Connection
) -> None:
    services.start_web(MAILROOM_WEBHOOK_SECRETS="yesterday's secret")
    emails = [email() for _ in range(500)]
    deliveries = [signed(payload) for payload in emails]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda delivery: post(services, delivery), deliveries))
    assert {answer.status_code for answer in answers} == {401}
    assert stored(connection) == []
    refused_at = {row["received_at"] for row in kept(connection)}
    assert len(kept(connection)) == 500
    unmended = services.run(
        *("mailroom", "quarantine", "retry", "--all"), MAILROOM_WEBHOOK_SECRETS="still wrong"
    )
    assert unmended.returncode == 1
    assert unmended.stdout == "0 accepted, 0 duplicates, 500 refused again\n"
    mended = services.run("mailroom", "quarantine", "retry", "--all", "--reason", "signature")
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout == "500 accepted, 0 duplicates, 0 refused again\n"
    rows = stored(connection)
    assert {row["from_email"] for row in rows} == {payload["from_email"] for payload in emails}
    assert len(rows) == 500
    assert {row["received_at"] for row in rows} == refused_at
    assert kept(connection) == []


def test_what_was_admitted_in_the_meantime_is_a_duplicate(
    services: Services, connection: Connection
) -> None:
    web = services.start_web(MAILROOM_WEBHOOK_SECRETS="wrong")
    delivery = signed(email())
    assert post(services, delivery).status_code == 401
    web.terminate()
    web.wait()
    services.start_web()
    assert post(services, delivery).json()["status"] == "accepted"
    ended = services.run("mailroom", "quarantine", "retry", "--all")
    assert ended.stdout == "0 accepted, 1 duplicates, 0 refused again\n"
    assert len(stored(connection)) == 1


def refused(reason: str) -> dict[str, Any]:
    """A delivery that is refused for this reason."""
    match reason:
        case "signature":
            return signed(email(), secret="another secret")
        case "unreadable":
            return signed(b'[{"ticket_id": "1"}]')
        case "invalid":
            return signed(email(from_email=""))
        case "too_large":
            return signed(b'{"a": "' + b"a" * 3000 + b'"}')
        case _:
            delivery = signed(email())
            delivery["headers"]["content-type"] = "text/plain"
            return delivery


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("signature", 401),
        ("unreadable", 400),
        ("invalid", 400),
        ("too_large", 413),
        ("media_type", 415),
    ],
)
def test_every_refusal_is_kept_with_its_bytes_and_reason(
    web: Services, connection: Connection, reason: str, status: int
) -> None:
    delivery = refused(reason)
    answer = post(web, delivery)
    assert answer.status_code == status
    (row,) = kept(connection)
    assert row["reason"] == reason
    assert row["remote_address"] == "127.0.0.1"
    signature = "x-zendesk-webhook-signature"
    assert row["headers"][signature] == delivery["headers"][signature]
    if reason == "too_large":
        assert row["body"] is None
    else:
        assert bytes(row["body"]) == delivery["content"]
        assert row["size"] == len(delivery["content"])
        assert answer.json()["detail"] in row["detail"]
    assert stored(connection) == []


def test_a_retry_passes_over_what_the_database_refuses(
    services: Services, connection: Connection
) -> None:
    services.start_web(MAILROOM_WEBHOOK_SECRETS="wrong")
    subjects = ["first", "spam", "last"]
    for subject in subjects:
        assert post(services, signed(email(subject=subject))).status_code == 401
    spam = "ALTER TABLE incoming_emails ADD CONSTRAINT no_spam CHECK (subject <> 'spam')"
    connection.execute(spam)
    ended = services.run("mailroom", "quarantine", "retry", "--all")
    assert ended.returncode == 1
    assert ended.stdout.endswith(
        "2 accepted, 0 duplicates, 0 refused again, 1 not stored: try again\n"
    )
    assert sorted(row["subject"] for row in stored(connection)) == ["first", "last"]
    (left,) = kept(connection)
    connection.execute("ALTER TABLE incoming_emails DROP CONSTRAINT no_spam")
    left_id = str(left["id"])
    ended = services.run("mailroom", "quarantine", "retry", left_id, left_id)
    assert ended.returncode == 0
    assert ended.stdout == "1 accepted, 0 duplicates, 0 refused again\n"


def test_an_address_that_no_column_holds_loses_no_refusal(
    web: Services, connection: Connection
) -> None:
    deliveries = [refused("signature") for _ in range(20)]
    deliveries[5]["headers"]["x-forwarded-for"] = "a" * 100
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda delivery: post(web, delivery), deliveries))
    assert [answer.status_code for answer in answers] == [401] * 20
    addresses = [row["remote_address"] for row in kept(connection)]
    assert len(addresses) == 20
    assert "a" * 64 in addresses


def test_a_webhook_of_another_media_type_is_admitted_when_an_operator_asks(
    web: Services, connection: Connection
) -> None:
    assert post(web, refused("media_type")).status_code == 415
    (row,) = kept(connection)
    ended = web.run("mailroom", "quarantine", "retry", str(row["id"]))
    assert ended.stdout == "1 accepted, 0 duplicates, 0 refused again\n"


def test_the_bounds_hold_and_what_is_dropped_is_counted(
    services: Services, connection: Connection
) -> None:
    services.start_web(
        MAILROOM_QUARANTINE_MAX_ROWS="20",
        MAILROOM_QUARANTINE_MAX_SHARE="0.5",
        MAILROOM_QUARANTINE_MAX_BYTES="100000",
    )
    for _ in range(30):
        assert post(services, refused("signature")).status_code == 401
    assert len(kept(connection)) == 10
    listed = services.run("mailroom", "quarantine", "list")
    assert listed.stdout.endswith(
        "10 refused webhooks are kept, 20 were dropped for lack of room.\n"
    )
    # Another address still has room.
    delivery = refused("signature")
    delivery["headers"]["x-forwarded-for"] = "192.0.2.7"
    assert post(services, delivery).status_code == 401
    assert [row["remote_address"] for row in kept(connection)].count("192.0.2.7") == 1
    # A large one is over the share of bytes.
    delivery = signed(json.dumps(email(body_text="x" * 60_000)).encode(), secret="wrong")
    delivery["headers"]["x-forwarded-for"] = "192.0.2.8"
    assert post(services, delivery).status_code == 401
    assert "192.0.2.8" not in [row["remote_address"] for row in kept(connection)]
    # What is too old goes, though nothing is refused any more.
    connection.execute("UPDATE quarantined_webhooks SET received_at = now() - interval '31 days'")
    wait_until(lambda: kept(connection) == [])
    assert post(services, refused("signature")).status_code == 401
    assert len(kept(connection)) == 1


def test_list_show_and_discard(web: Services, connection: Connection) -> None:
    for reason in ("signature", "invalid", "unreadable"):
        post(web, refused(reason))
    listed = web.run("mailroom", "quarantine", "list", "--reason", "invalid", "--json")
    (entry,) = map(json.loads, listed.stdout.splitlines())
    assert "from_email" in entry["detail"]
    shown = web.run("mailroom", "quarantine", "show", entry["id"])
    assert "x-zendesk-webhook-signature: " in shown.stdout
    assert "Päckchen" in json.loads(shown.stdout.split("\n\n")[1])["subject"]
    ended = web.run("mailroom", "quarantine", "discard", entry["id"])
    assert ended.stdout == "1 discarded\n"
    assert len(kept(connection)) == 2
    unclear = web.run("mailroom", "quarantine", "discard")
    assert unclear.returncode == 1
    assert "--all" in unclear.stderr
    missing = web.run("mailroom", "quarantine", "show", entry["id"])
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr
    ended = web.run("mailroom", "quarantine", "discard", "--all")
    assert ended.stdout == "2 discarded\n"
    assert kept(connection) == []


def test_where_a_refusal_cannot_be_kept_zendesk_is_asked_to_repeat_it(services: Services) -> None:
    services.start_web(DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
    answer = post(services, refused("signature"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) < 60


def test_neither_bodies_nor_secrets_reach_the_log(services: Services) -> None:
    services.start_web()
    post(services, refused("signature"))
    assert not re.search("Päckchen|example.com|another secret", services.log())
    assert SECRET not in services.log()
