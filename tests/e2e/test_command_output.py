"""What programs read of a command: its answer alone stands on standard output."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import psycopg
import pytest
from support import PASSWORD, Services, command_line
from zendesk.account import Account
from zendesk.server import api_in_thread
from zendesk.suspended_api import suspend

from app.cli.main import main

TOKEN = "a-token-that-stands-in-no-log"
NO_ZENDESK = {
    "MAILROOM_ZENDESK_URL": "http://127.0.0.1:1",
    "MAILROOM_ZENDESK_EMAIL": "olga@example.com",
    "MAILROOM_ZENDESK_TOKEN": TOKEN,
}

ID = str(UUID(int=1))
# Else there is nothing that `reconcile` could compare. Nobody listens there, and nothing is sent.
RECEIVER = {
    "MAILROOM_SYNC_URL": "http://127.0.0.1:1/",
    "MAILROOM_SYNC_SECRETS": "whsec_" + "c2VjcmV0" * 5,
}
# What each command that prints JSON is told beside `--json`.
PRINT_JSON = {
    "attachments list": [],
    "bulk list": [],
    "bulk show": [ID],
    "bulk start": ["retry", "--id", ID],
    "doctor": [],
    "erase": ["--id", ID],
    "erasures": [],
    "handler run": [ID],
    "lint": ["-"],
    "quarantine list": [],
    "reconcile": [],
    "show": [ID],
    "status": [],
    "stuck": [],
    "suspended list": [],
    "text": ["-"],
}


def test_a_look_that_fails_is_logged_without_the_token(services: Services) -> None:
    ended = services.run("mailroom", "gaps", **NO_ZENDESK)
    assert "chore_failed" in ended.stderr
    assert "chore_failed" not in ended.stdout
    said = ended.stdout + ended.stderr
    assert TOKEN not in said
    assert "authorization" not in said.lower()


def test_an_erasure_prints_its_record_alone(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    connection.execute("INSERT INTO incoming_emails (from_email) VALUES ('erika@example.com')")
    erased = services.run("mailroom", "erase", "--json", "--sender", "erika@example.com")
    assert json.loads(erased.stdout)["erased"]["emails"] == 1
    exported = services.run("mailroom", "erasures", "export")
    assert exported.returncode == 0, exported.stderr
    assert [json.loads(line) for line in exported.stdout.splitlines()]


@pytest.fixture
def something_of_each(connection: "psycopg.Connection[dict[str, object]]") -> None:
    """An email, and of what else commands list, one each, with line breaks in their texts."""
    for statement in (
        "INSERT INTO incoming_emails (id, from_email, subject, raw_body_text, created_at)"
        " VALUES (%(id)s, 'erika@example.com', E'two\nlines', 'Hello', now() - interval '9 days')",
        "INSERT INTO email_attachments (email, position, filename, state, reason, ended_at)"
        " VALUES (%(id)s, 0, E'two\nlines', 'failed', 'gone', now())",
        "INSERT INTO quarantined_webhooks (id, reason, detail, remote_address, headers, body)"
        " VALUES (%(id)s, 'unreadable', E'two\nlines', '127.0.0.1', '{}', '{')",
        "INSERT INTO bulk_actions (id, action, filter, asked_by, reasons)"
        " VALUES (%(id)s, 'retry', E'two\nlines', 'olga', '{}')",
        "INSERT INTO erasures (id, kind, criterion_hash, asked_by, last_error, ended_at)"
        " VALUES (%(id)s, 'sender', 'x', 'olga', E'two\nlines', now())",
    ):
        connection.execute(statement, {"id": ID})


@pytest.mark.parametrize("command", PRINT_JSON)
@pytest.mark.usefixtures("something_of_each")
def test_json_can_be_read(services: Services, command: str) -> None:
    account = Account()
    suspend(account, "erika@example.com", "two\nlines")
    with api_in_thread(account) as api:
        ended = services.run(
            *("mailroom", *command.split(), *PRINT_JSON[command], "--json"),
            stdin=b"<p>Hello</p>",
            **api.environment,
            **RECEIVER,
        )
    assert ended.returncode in (0, 1), ended.stderr
    assert [*documents(ended.stdout)], ended.stderr


def documents(text: str) -> Iterator[Any]:
    """What stands in a text as JSON, one after the other, a line or more each.

    Raises:
        JSONDecodeError: there is something else.
    """
    decoder = json.JSONDecoder()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        assert text[end] == "\n"
        text = text[end + 1 :]


def test_these_are_all_commands_that_print_json() -> None:
    with click.Context(main) as context:
        assert sorted(with_json(main, context)) == sorted(PRINT_JSON)


def with_json(command: click.Command, context: click.Context, name: str = "") -> Iterator[str]:
    if any("--json" in parameter.opts for parameter in command.params):
        yield name
    if isinstance(command, click.Group):
        for one in command.list_commands(context):
            below = command.get_command(context, one)
            assert below is not None
            yield from with_json(below, context, f"{name} {one}".strip())


def print_into(services: Services, output: int, *command: str) -> tuple[int, str]:
    """Run a command whose standard output leads there. Returns its status, and what it says."""
    ended = subprocess.run(
        command_line("mailroom", *command),
        cwd=services.folder,
        env={**os.environ, **services.environment},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )
    return ended.returncode, ended.stderr


PRINT = [["erasures", "export"], ["quarantine", "export", ID], ["size", "--emails-per-day", "9"]]


@pytest.mark.parametrize("command", PRINT, ids=" ".join)
@pytest.mark.usefixtures("something_of_each")
def test_a_full_disk_is_the_fault_of_the_output(services: Services, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        status, said = print_into(services, full.fileno(), *command)
    assert (status, said) == (
        1,
        "mailroom: what is printed cannot be written (No space left on device): see where the"
        " output leads\n",
    )


@pytest.mark.parametrize("command", PRINT, ids=" ".join)
@pytest.mark.usefixtures("something_of_each")
def test_who_has_read_enough_is_no_fault(services: Services, command: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        assert print_into(services, writes, *command) == (1, "")
    finally:
        os.close(writes)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["quarantine", "export", "--folder", "/proc/nope", ID], "/proc/nope"),
        (["quarantine", "export", "--file", "/dev/full", ID], "/dev/full cannot be written: No"),
        (["user", "create", "x" * 300, "--email", "x@example.com"], "too long"),
    ],
)
@pytest.mark.usefixtures("something_of_each")
def test_files_and_values_are_no_fault_of_the_database(
    services: Services, command: list[str], said: str
) -> None:
    ended = services.run("mailroom", *command, stdin=f"{PASSWORD}\n{PASSWORD}\n".encode())
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert said in line
    assert "the database cannot be used" not in line
