"""The commands of docs/backup.md, against a real PostgreSQL, and what is true after them."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from databases import Databases
from fake_receiver import SECRET as SYNC_SECRET
from fake_receiver import FakeReceiver, receiver_in_a_thread
from fake_zendesk import zendesk_in_thread
from psycopg.rows import dict_row
from servers import Server, make_folder_of_servers, programs_of_16
from support import PROJECT, Services, email, make_settings, signed, wait_until
from zendesk.account import WEBHOOK_SECRET, Account
from zendesk.server import FakeApi, api_in_thread

from app.attachments.store import storage_key
from app.database.embedded.programs import find_binaries
from app.intake.openapi import WEBHOOK_PATH
from app.jobs.broker import make_broker, prepare_broker
from app.jobs.messages import make_message

pytestmark = pytest.mark.long

DOCS = (PROJECT / "docs" / "backup.md").read_text()
BLOCKS = [
    "\n".join(line.removeprefix("    ") for line in block.splitlines())
    for block in DOCS.split("\n\n")
    if block.startswith("    ")
]


def block(beginning: str) -> str:
    """The commands of the documents that begin so."""
    (found,) = [one for one in BLOCKS if one.startswith(beginning)]
    return found


def shell(services: Services, commands: str, server: Server | None = None, **more: str) -> str:
    """Run commands as they stand, with the programs of a server and of Mailroom; of a server of the
    test's own as its user."""
    programs, user = (server.programs, server.user) if server else (find_binaries(), None)
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=services.folder if user is None else "/",
        env={**os.environ, **services.environment, "PATH": ":".join(path), **more},
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def rows(url: str, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


def test_the_documents_commands_are_all_run_here() -> None:
    used = ("pg_dump", "mailroom erasures export", "createdb", "pg_basebackup", 'cp --archive "$B')
    used += ('mkdir -p "$STORE"', "mailroom erasures import", "mailroom doctor")
    assert [one for one in BLOCKS if not one.startswith(used)] == []


def test_a_dump_is_put_back_with_its_files_and_without_what_was_erased_since(
    services: Services, databases: Databases, tmp_path: Path
) -> None:
    backup, store = tmp_path / "backup", tmp_path / "home" / "attachments"
    backup.mkdir()
    url = services.environment["DATABASE_URL"]
    restored_url = url.replace(databases.name_of(url), "mailroom_restored")
    with zendesk_in_thread(tmp_path) as zendesk:
        services.environment |= zendesk.environment
        services.start_web()
        file = {"url": zendesk.add("letter.txt", content=b"a letter"), "filename": "letter.txt"}
        ids = [
            httpx.post(services.url + WEBHOOK_PATH, **signed(payload)).json()["email_id"]
            for payload in (email(attachments=[file]), email(from_email="erika@example.com"))
        ]
        services.start_worker()
        ended = "SELECT FROM incoming_emails WHERE processing_status = 'completed'"
        wait_until(lambda: len(rows(url, ended)) == 2, services.log)
    services.end()
    kept = store / storage_key(hashlib.sha256(b"a letter").hexdigest())
    folders = {
        "BACKUP": str(backup),
        "STORE": str(store),
        "RESTORED_URL": restored_url,
        "ADMIN_URL": url.replace(databases.name_of(url), "postgres"),
    }
    shell(services, block("pg_dump"), **folders)
    erased = services.run("mailroom", "erase", "--sender", "erika@example.com")
    assert erased.returncode == 0, erased.stderr
    shell(services, block("mailroom erasures export"), **folders)
    assert "erika" not in (backup / "erasures.jsonl").read_text()
    shutil.rmtree(store)
    before = rows(url, "SELECT * FROM incoming_emails")
    assert [str(row["id"]) for row in before] == ids[:1]
    services.end()

    shell(services, block("createdb"), **folders)
    try:
        services.environment["DATABASE_URL"] = restored_url
        assert {str(row["id"]) for row in rows(restored_url, "SELECT id FROM incoming_emails")} == {
            *ids
        }
        shell(services, block("mkdir"), **folders)
        assert kept.read_bytes() == b"a letter"
        told = shell(services, block("mailroom erasures import"), **folders)
        assert "1 emails are erased again" in told
        assert rows(restored_url, "SELECT * FROM incoming_emails") == before
        _, verify = block("mailroom erasures import").splitlines()
        kept.unlink()
        doctor = services.run("mailroom", "doctor", "--after-restore")
        assert "the store lacks 1 of the 1 contents kept last" in doctor.stdout
        verified = services.run(*verify.split())
        assert verified.returncode == 1
        assert f"missing: {kept.name}, of {ids[0]}/0" in verified.stdout
        (left,) = rows(restored_url, "SELECT state FROM email_attachments")
        assert left["state"] == "pending"
        again = services.run("mailroom", "erasures", "import", str(backup / "erasures.jsonl"))
        assert "0 emails are erased again" in again.stdout
        by = services.run("mailroom", "erasures", "--sender", "erika@example.com")
        assert by.stdout.count("by sender") == 1
        (backup / "erasures.jsonl").write_text('{"of": "else", "row": {}}\n')
        wrong = services.run("mailroom", "erasures", "import", str(backup / "erasures.jsonl"))
        assert wrong.returncode == 1
        assert "line 1 is none" in wrong.stderr
    finally:
        services.end()
        databases.drop(restored_url)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that archives its log as the documents say."""
    folder = make_folder_of_servers()
    server = Server(folder / "data", programs_of_16())
    for name in ("backup", "backup/wal"):
        (folder / name).mkdir()
        if server.user is not None:
            shutil.chown(folder / name, server.user)
    settings = DOCS.partition("```ini\n")[2].partition("```")[0]
    server.make(settings.replace("/srv/backup", str(folder / "backup")))
    yield server
    server.stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    with receiver_in_a_thread() as receiver:
        yield receiver


@pytest.fixture
def api() -> Iterator[FakeApi]:
    account = Account()
    account.add_webhook("https://mail.example.com/api/v1/zendesk/webhook")
    with api_in_thread(account) as api:
        api.unlimited()
        yield api


# Of a message, only the id of its email is looked at.
@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_after_a_restore_to_a_moment_nothing_is_lost_and_what_comes_twice_says_so(
    server: Server, receiver: FakeReceiver, api: FakeApi, broker_url: str, tmp_path: Path
) -> None:
    services = Services(server.url(), tmp_path)
    services.environment |= {
        **api.environment,
        "BROKER_URL": broker_url,
        "MAILROOM_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "MAILROOM_SYNC_URL": receiver.url,
        "MAILROOM_SYNC_SECRETS": SYNC_SECRET,
        "MAILROOM_ZENDESK_EXPORTS_PER_MINUTE": "1000",
        "MAILROOM_ZENDESK_SHARE": "1",
    }
    backup = server.data.parent / "backup"
    folders = {
        "BACKUP": str(backup),
        "ADMIN_URL": server.url("postgres"),
        "PGDATA": str(server.data.parent / "restored"),
    }

    def send(payload: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(services.url + WEBHOOK_PATH, **signed(payload, secret=WEBHOOK_SECRET))
        told: dict[str, Any] = answer.raise_for_status().json()
        return told

    def completed(count: int) -> bool:
        ended = "SELECT FROM incoming_emails WHERE sync_status = 'synced'"
        return len(rows(services.environment["DATABASE_URL"], ended)) == count

    try:
        assert services.run("mailroom", "migrate").returncode == 0
        assert services.run("mailroom", "gaps").returncode == 0
        services.start_web()
        first, secret = email(), email(from_email="erika@example.com")
        there = send(first)["email_id"]
        shell(services, block("pg_basebackup"), server, **folders)
        send(secret)
        moment = str(rows(server.url(), "SELECT clock_timestamp() AS now")[0]["now"])
        # The future that is taken back.
        later = email(ticket_id="1", body_html=None, body_text="just now")
        api.account.mail(later["from_email"], "just now")
        api.account.parts["exported_until"] = datetime.now(UTC) + timedelta(minutes=1)
        first_id = send(later)["email_id"]
        services.start_worker()
        wait_until(lambda: completed(3), services.log)
        assert services.run("mailroom", "erase", "--sender", "erika@example.com").returncode == 0
        shell(services, 'mailroom erasures export > "$BACKUP/erasures.jsonl"', **folders)
        services.end()
        delivered = {one["data"]["id"]: one for one in receiver.events}
        server.stop()

        shell(services, block('cp --archive "$B'), server, **folders, MOMENT=moment)
        found = rows(server.url(), "SELECT processing_status, from_email FROM incoming_emails")
        assert sorted(row["processing_status"] for row in found) == ["received"] * 2

        doctor = services.run("mailroom", "doctor", "--after-restore")
        for said in ("tickets are looked through again", "erasures import FILE", "ahead of"):
            assert said in doctor.stdout, doctor.stdout
        shell(services, block("mailroom erasures import"), **folders)
        send_unknown(services, broker_url)
        services.start_web()
        forgotten = services.run("mailroom", "doctor", "--after-restore")
        assert "FAIL stopped" in forgotten.stdout
        assert send(secret)["status"] == "duplicate"
        gaps = services.run("mailroom", "gaps")
        assert "1 emails missing" in gaps.stdout, gaps.stdout + gaps.stderr
        receiver.deliveries.clear()
        services.start_worker()
        wait_until(lambda: completed(2), services.log)
        again = {one["data"]["id"]: one for one in receiver.events}
        assert again[there]["id"] == delivered[there]["id"]
        (other,) = again.keys() - {there}
        assert other != first_id
        assert (other_data := again[other]["data"])["origin"] == "backfill"
        assert (first_data := delivered[first_id]["data"])["origin"] == "webhook"
        # It was found by its ticket, which knows nothing of the call that brought it first.
        assert other_data["key"] == f"comment:{other_data['comment_id']}" != first_data["key"]
        for same in ("ticket_id", "from_email", "body_text"):
            assert other_data[same] == first_data[same]
        assert "Failed to process" not in services.log()
    finally:
        services.end()
        server.run("pg_ctl", "stop", "-m", "immediate", "-D", folders["PGDATA"], check=False)


def send_unknown(services: Services, broker_url: str) -> None:
    """A message of the future, for an email that is not there."""
    settings = make_settings(broker_url=broker_url, queue=services.queue)
    broker = make_broker(settings, services.environment["DATABASE_URL"])
    prepare_broker(broker)
    try:
        broker.enqueue(make_message(services.queue, [uuid4()]))
    finally:
        broker.close()
