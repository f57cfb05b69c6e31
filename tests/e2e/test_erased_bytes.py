"""After an erasure, and the vacuum that the docs name, not a byte of it is left: in the files of
the database, in the store, in the broker, in any log."""

import contextlib
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pika
import psycopg
import pytest
import redis
from fake_zendesk import FakeZendesk, zendesk_in_thread
from migrated_model import lay_down
from support import PROJECT, Services, email, make_settings, signed, wait_until

from app.database.embedded.server import EmbeddedPostgres
from app.intake.openapi import WEBHOOK_PATH
from app.jobs.broker import make_broker, prepare_broker
from app.jobs.messages import make_message

ADDRESS = "planted.person@example.org"
BODY = "planted words in a body"
FILE = "planted words in a file"
DOCS = (PROJECT / "docs" / "retention.md").read_text()


@pytest.fixture
def server(short_folder: Path, model: Path) -> Iterator[EmbeddedPostgres]:
    lay_down(model, short_folder / "pg")
    server = EmbeddedPostgres(short_folder / "pg")
    server.acquire()
    yield server
    server.release()


def statements() -> list[str]:
    """Those of the docs, one after the other."""
    (block,) = re.findall(r"```sql\n(VACUUM.*?)```", DOCS, re.DOTALL)
    return [part.strip() for part in block.split(";\n") if part.strip()]


def places(*folders: Path) -> set[str]:
    """Where one of the planted texts stands."""
    found = set()
    for folder in folders:
        for path in (p for p in folder.rglob("*") if p.is_file()):
            content = path.read_bytes()
            for text in (ADDRESS, BODY, FILE):
                if text.encode() in content or text.encode("utf-16-le") in content:
                    found.add(f"{path.relative_to(folder)}: {text}")
    return found


@pytest.mark.long
def test_no_byte_of_what_was_erased_is_left(server: EmbeddedPostgres, tmp_path: Path) -> None:
    services = Services(server.url, tmp_path)
    try:
        with zendesk_in_thread(tmp_path) as zendesk:
            plant(services, zendesk)
            folders = [server.home, tmp_path / "home"]
            before = {where.partition("/")[0].partition(":")[0] for where in places(*folders)}
            assert before >= {"postgres", "attachments"}
            erased = services.run("mailroom", "erase", "--sender", ADDRESS.upper())
            assert erased.returncode == 0, erased.stderr
            assert "erased 2 emails, 1 files" in erased.stdout
            store = tmp_path / "home" / "attachments"
            wait_until(lambda: not [p for p in store.rglob("*") if p.is_file()])
        folders.append(tmp_path)
        with psycopg.connect(server.url, autocommit=True) as connection:
            for statement in statements():
                # None is for nothing.
                assert places(*folders), statement
                connection.execute(statement)
        assert places(*folders) == set()
        assert services.run("mailroom", "erase", "--sender", ADDRESS).returncode == 1
    finally:
        services.end()


def test_what_a_broker_stores_is_searched_too_and_holds_ids_alone(
    services: Services, connection: "psycopg.Connection[dict[str, object]]", broker_url: str
) -> None:
    """While its message waits for a worker."""
    row = connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, raw_body_text) VALUES (%s, %s, %s)"
        " RETURNING id",
        [ADDRESS, BODY, BODY],
    ).fetchone()
    assert row is not None
    services.environment["BROKER_URL"] = broker_url
    settings = make_settings(broker_url=broker_url, queue=services.queue)
    broker = make_broker(settings, services.environment["DATABASE_URL"])
    prepare_broker(broker)
    try:
        broker.enqueue(make_message(services.queue, [UUID(str(row["id"]))]))
    finally:
        broker.close()
    found = stored(services, connection, broker_url)
    assert str(row["id"]) in found
    for text in (ADDRESS, BODY):
        assert text not in found


def stored(
    services: Services, connection: "psycopg.Connection[dict[str, object]]", broker_url: str
) -> str:
    """All that a broker has: of Redis each key, of RabbitMQ each message of the test's queues."""
    if broker_url.startswith("redis"):
        with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
            read: dict[bytes, Callable[[bytes], object]] = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"list": lambda key: client.lrange(key, 0, -1),
                b"set": client.smembers,
                b"zset": lambda key: client.zrange(key, 0, -1),
            }
            return " ".join(
                f"{key!r} {read[kind](key)}"
                for key in client.scan_iter()
                # Others may use it at the same time.
                if (kind := client.type(key)) in read and services.queue.encode() in key
            )
    if broker_url.startswith("amqp"):
        parts = []
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker_url))) as server:
            for name in (services.queue, f"{services.queue}.DQ", f"{services.queue}.XQ"):
                channel = server.channel()
                with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                    # Given back when the connection closes.
                    while (message := channel.basic_get(name))[0] is not None:
                        parts.append(str(message))
        return " ".join(parts)
    rows = connection.execute("SELECT queue::text AS row FROM dramatiq.queue").fetchall()
    return " ".join(str(row["row"]) for row in rows)


def plant(services: Services, zendesk: FakeZendesk) -> None:
    url = zendesk.add("planted.txt", content=FILE.encode())
    # No compression hides it: neither is there a pattern in it, nor does it fit into a row.
    body = " ".join(f"{BODY} {b64encode(os.urandom(900)).decode()}" for _ in range(20))
    services.start_web(**zendesk.environment)
    services.start_worker(**zendesk.environment)
    address = f"{services.url}{WEBHOOK_PATH}"
    planted = email(from_email=ADDRESS, body_text=body, attachments=[{"url": url}])
    broken = b'{"ticket_id": "7", "note": "' + ADDRESS.encode() + b'", "from_email": "a"b"'
    for payload in (planted, broken, email()):
        assert httpx.post(address, **signed(payload)).status_code == 200
    refused = httpx.post(address, **signed(planted, secret="of somebody else, and long enough"))
    assert refused.status_code == 401
    with psycopg.connect(services.environment["DATABASE_URL"], autocommit=True) as connection:
        wait_until(
            lambda: (
                connection.execute(
                    "SELECT count(*) FROM incoming_emails"
                    " WHERE processing_status IN ('completed', 'failed')"
                ).fetchone()
                == (3,)
            )
        )
        connection.execute("ANALYZE")
