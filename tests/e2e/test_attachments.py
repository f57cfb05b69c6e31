"""Files of emails through real processes, and workers that are killed while they fetch."""

import asyncio
import hashlib
import json
import os
from pathlib import Path

import psycopg
from fake_zendesk import Asked, answer, begin, zendesk_in_thread
from psycopg.rows import dict_row
from support import Services, wait_until

from app.attachments.removing import erasing
from app.attachments.store import storage_key


async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Begin, and never end."""
    begin(writer, 200, content_length="1000000")
    writer.write(b"x" * 500_000)
    await writer.drain()
    await asyncio.Event().wait()


async def _answer_gone(writer: asyncio.StreamWriter) -> None:
    answer(writer, 404, b"")


def rows(services: Services) -> list[dict[str, object]]:
    with psycopg.connect(services.environment["DATABASE_URL"], row_factory=dict_row) as connection:
        return connection.execute("SELECT * FROM email_attachments ORDER BY position").fetchall()


def store_email(services: Services, *urls: str) -> str:
    """As the Intake does."""
    with psycopg.connect(services.environment["DATABASE_URL"], autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO incoming_emails (from_email, raw_body_text, attachment_urls)"
            " VALUES ('erika@example.com', 'See the files.', %s) RETURNING id",
            [json.dumps([{"url": url, "filename": url.rpartition("=")[2]} for url in urls])],
        ).fetchone()
        assert row is not None
        return str(row[0])


def state_of(services: Services, email_id: str) -> str:
    with psycopg.connect(services.environment["DATABASE_URL"]) as connection:
        row = connection.execute(
            "SELECT processing_status FROM incoming_emails WHERE id = %s", [email_id]
        ).fetchone()
        assert row is not None
        return str(row[0])


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_worker_that_is_killed_in_the_middle_of_a_download_loses_and_leaves_nothing(
    services: Services, tmp_path: Path
) -> None:
    """The email waits for its files, which another worker fetches; none is kept in half."""
    content = os.urandom(300_000)
    home = Path(services.environment["MAILROOM_HOME"])
    with zendesk_in_thread(tmp_path) as zendesk:
        slow = zendesk.add("slow.bin", content=content, cdn=endless)
        gone = zendesk.add("gone.pdf", account=lambda _, writer: _answer_gone(writer))
        kept = zendesk.add("kept.txt", content=b"a letter")
        email_id = store_email(services, slow, gone, kept)
        environment = {**zendesk.environment, "MAILROOM_LEASE_SECONDS": "5"}
        worker = services.start_worker(**environment)
        wait_until(
            lambda: [row["state"] for row in rows(services)] == ["pending", "failed", "kept"]
        )
        # Half of the slow one is here.
        wait_until(lambda: any(p.stat().st_size for p in files_in(home / "downloads")))
        assert state_of(services, email_id) == "queued"
        services.kill_group(worker)
        zendesk.rows["slow.bin"].cdn = None
        services.start_worker(**environment)
        wait_until(lambda: state_of(services, email_id) == "completed")
    by_position = rows(services)
    assert [row["state"] for row in by_position] == ["kept", "failed", "kept"]
    assert by_position[1]["reason"] == "gone"
    sha256 = hashlib.sha256(content).hexdigest()
    assert by_position[0]["sha256"] == sha256
    store = home / "attachments"
    assert (store / storage_key(sha256)).read_bytes() == content
    assert len(files_in(store)) == 2
    # What the killed one had begun went with its folder.
    assert [path.name for path in files_in(home / "downloads")] == ["lock"]
    told = services.run("mailroom", "show", email_id).stdout
    assert "kept, 300000 bytes" in told
    assert "file 1 (gone.pdf): failed: gone. The file is not there any more" in told
    listed = services.run("mailroom", "attachments", "list", "--state", "failed")
    assert listed.stdout.startswith(f"{email_id}/1  failed  gone.pdf  gone: ")
    (store / storage_key(sha256)).unlink()
    verified = services.run("mailroom", "attachments", "verify")
    assert verified.returncode == 1
    assert f"missing: {sha256}, of {email_id}/0" in verified.stdout
    # The worker that runs removes what is erased.
    other = next(row["sha256"] for row in rows(services) if row["position"] == 2)
    with psycopg.connect(services.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"WITH {erasing('true')} SELECT")
    wait_until(lambda: not (store / storage_key(str(other))).exists())
