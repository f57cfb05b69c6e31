"""Emails out of files are what a handler would get of them."""

import json
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support import email as payload

from app.cli import handler as handler_command
from app.cli.email_files import UnreadableEmailError, read_email_file
from app.cli.main import main

SOURCE = """
async def handle(email, context):
    context.progress("opens a case")
    email.cleaned_body = "text"
    if email.subject == "busy":
        await context.http.post("https://crm.example.com")
    if email.subject == "broken":
        raise ConnectionError("away")
    return {"subject": email.subject, "dry": context.is_dry_run, "attempt": context.attempt}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in a folder with a handler. Returns what it said."""
    (tmp_path / "handler_of_this_folder.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    # The command logs to its own output, which ends with it.
    monkeypatch.setattr(handler_command, "configure_logging", lambda settings: None)

    def run(*arguments: str) -> Result:
        options = ("--handler", "handler_of_this_folder:handle")
        return CliRunner().invoke(main, ["handler", "run", *arguments, *options])

    return run


def write(folder: Path, **fields: Any) -> str:
    path = folder / "webhook.json"
    path.write_text(json.dumps(payload(**fields)))
    return str(path)


async def test_a_webhook_in_a_file_is_read_as_the_intake_does(tmp_path: Path) -> None:
    files = [{"url": "https://example.com/a", "filename": "a.pdf", "size": "12"}]
    email = read_email_file(Path(write(tmp_path, subject=4711, attachments=files, more=[1])))
    assert email.subject == "4711"
    assert email.zendesk_ticket_id == "35436"
    assert email.raw_payload["more"] == [1]
    (file,) = await email.attachments.all()
    assert (file.filename, file.claimed_size, file.is_kept) == ("a.pdf", 12, False)
    assert "nothing was fetched" in str(file.why)


async def test_a_message_in_a_file_is_read_with_its_files(tmp_path: Path) -> None:
    message = EmailMessage()
    message["From"] = "Erika Müller <erika@example.com>"
    message["Subject"] = "Päckchen"
    message.set_content("Wo ist es?")
    message.add_alternative("<p>Wo ist es?</p>", subtype="html")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
    (tmp_path / "a.eml").write_bytes(bytes(message))
    email = read_email_file(tmp_path / "a.eml")
    assert (email.from_email, email.from_name) == ("erika@example.com", "Erika Müller")
    assert email.subject == "Päckchen"
    assert (email.raw_body_text or "").strip() == "Wo ist es?"
    assert (email.raw_body_html or "").strip() == "<p>Wo ist es?</p>"
    (file,) = await email.attachments.kept()
    assert (file.filename, file.content_type, await file.read()) == (
        "a.pdf",
        "application/pdf",
        b"%PDF",
    )


@pytest.mark.parametrize(
    "content", [b"", b"no JSON", b"[]", b'{"ticket_id": "1"}', b"\xff\xfe", b"{" * 1_000]
)
def test_what_is_no_email_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "webhook.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableEmailError, match=r"webhook\.json is no webhook's JSON: "):
        read_email_file(path)


def test_any_bytes_are_a_message_of_some_sort(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    path.write_bytes(b"Content-Type: text/plain; charset=nobody\n\n\xff\x00 text")
    assert "text" in str(read_email_file(path).raw_body_text)
    path.write_bytes(b"")
    assert read_email_file(path).from_email == ""


def test_a_handler_of_the_working_folder_is_run_on_a_file(run: Any, tmp_path: Path) -> None:
    ended = run(write(tmp_path, subject="Hallo"), "--attempt", "2")
    assert ended.exit_code == 0, ended.output
    assert "progress: opens a case" in ended.output
    assert 'extracted_data: {"subject": "Hallo", "dry": false, "attempt": 2}' in ended.output
    assert "cleaned_body: 4 characters" in ended.output


def test_a_failed_run_says_what_would_be_recorded(run: Any, tmp_path: Path) -> None:
    ended = run(write(tmp_path, subject="broken"), "--json")
    assert ended.exit_code == 1
    told = json.loads(ended.stdout)
    assert told["outcome"] == "retried"
    assert told["error"] == "ConnectionError: away"
    assert told["retry_after"] > 10
    assert told["progress"] == ["opens a case"]


def test_a_dry_run_sends_nothing(run: Any, tmp_path: Path) -> None:
    ended = run(write(tmp_path, subject="busy"), "--dry-run")
    assert ended.exit_code == 1
    assert "by --dry-run: it would send POST to crm.example.com" in ended.output


@pytest.mark.parametrize("named", ["no such file", "4711"])
def test_what_is_neither_a_file_nor_an_id_is_explained(run: Any, named: str) -> None:
    ended = run(named)
    assert ended.exit_code == 1
    assert "is no file, and no id of an email" in ended.output
