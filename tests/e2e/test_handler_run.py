"""`mailroom handler run` says what would be recorded of an email, and changes nothing of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import psycopg
from support import Services

SOURCE = """
async def handle(email, context):
    context.progress("reads the files")
    email.cleaned_body = "changed"
    (file,) = await email.attachments.all()
    content = await file.read()
    return {"payload": email.raw_payload, "content": content.decode(), "name": file.filename}
"""


def test_an_email_of_the_database_is_tried_and_left_as_it_was(
    services: Services, connection: "psycopg.Connection[dict[str, Any]]"
) -> None:
    services.folder.joinpath("tried_handler.py").write_text(SOURCE)
    content = b"Hallo"
    sha256 = hashlib.sha256(content).hexdigest()
    home = Path(services.environment["MAILROOM_HOME"])
    kept = home / "attachments" / sha256[:2] / sha256
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    row = connection.execute(
        "INSERT INTO incoming_emails (from_email, processing_status, raw_payload)"
        """ VALUES ('erika@example.com', 'failed', '{"a": 1}') RETURNING *"""
    ).fetchone()
    assert row is not None
    connection.execute(
        "INSERT INTO email_attachments (email, position, url, filename, state, size, sha256)"
        " VALUES (%s, 0, '', 'a.txt', 'kept', 5, %s)",
        [row["id"], sha256],
    )
    ended = services.run(
        "mailroom", "handler", "run", str(row["id"]), "--handler", "tried_handler:handle", "--json"
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["outcome"] == "completed"
    assert told["cleaned_body"] == "changed"
    assert told["extracted_data"] == {"payload": {"a": 1}, "content": "Hallo", "name": "a.txt"}
    assert "progress: reads the files" in ended.stderr
    after = connection.execute("SELECT * FROM incoming_emails").fetchone()
    assert after == row


HANGS = """
import threading

def handle(email):
    threading.Event().wait()
"""


def test_a_handler_that_hangs_does_not_keep_the_command(services: Services) -> None:
    services.folder.joinpath("hanging_handler.py").write_text(HANGS)
    services.folder.joinpath("email.json").write_text(
        json.dumps({"ticket_id": "7", "from_email": "erika@example.com", "body_text": "Hallo"})
    )
    services.environment["MAILROOM_HANDLER_TIMEOUT_SECONDS"] = "1"
    ended = services.run(
        *("mailroom", "handler", "run", "email.json", "--handler", "hanging_handler:handle")
    )
    assert ended.returncode == 1, ended.stderr
    assert "did not finish within 1 seconds" in ended.stdout
