"""The `mailroom` command as people use it, and the field's own commands beside it."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import psycopg
import pytest
from click.testing import CliRunner
from databases import Databases
from fake_zendesk import zendesk_in_thread
from support import (
    PASSWORD,
    PRODUCTION,
    PROJECT,
    SECRET,
    WAIT_SECONDS,
    Services,
    email,
    free_port,
    is_success,
    sign_in,
    wait_until,
)

from app.cli.main import COMMANDS, main
from app.intake.openapi import WEBHOOK_PATH
from app.setting_groups.secrets import ZENDESK_PUBLIC_TEST_SECRET
from app.settings import Settings, environment_name


def states(connection: "psycopg.Connection[dict[str, object]]") -> dict[object, object]:
    rows = connection.execute(
        "SELECT processing_status, count(*) FROM incoming_emails GROUP BY 1"
    ).fetchall()
    return {row["processing_status"]: row["count"] for row in rows}


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_there_for_every_command(command: list[str]) -> None:
    ended = CliRunner().invoke(main, [*command, "--help"], prog_name="mailroom")
    assert ended.exit_code == 0
    assert ended.stdout.startswith(" ".join(["Usage: mailroom", *command]))


@pytest.mark.parametrize(
    "command",
    [
        *(["show", str(UUID(int=1))], ["stuck"], ["quarantine", "list"]),
        *(["quarantine", "retry", "--all"], ["quarantine", "discard", "--all"]),
        *(["token", "list"], ["token", "create", "crm"], ["token", "revoke", "crm"]),
    ],
    ids=" ".join,
)
def test_a_database_that_cannot_be_asked_is_told_in_a_sentence(
    services: Services, empty_database_url: str, tmp_path: Path, command: list[str]
) -> None:
    for url, said in (
        (f"postgresql://x@/x?host={tmp_path}", "the database cannot be used"),
        (empty_database_url, "run `mailroom migrate`"),
    ):
        ended = services.run("mailroom", *command, DATABASE_URL=url)
        assert ended.returncode == 1
        assert said in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


ZENDESK = {
    "MAILROOM_ZENDESK_URL": "http://127.0.0.1:1",
    "MAILROOM_ZENDESK_EMAIL": "olga@example.com",
    "MAILROOM_ZENDESK_TOKEN": "token",
}
TAKE_URL = (["doctor"], ["send"], ["drill"], ["zendesk", "setup"], ["zendesk", "check"])
NO_URLS = ("http://[::1", "https://example.com:99999", "mail.example.com")

# In a process of its own, where nothing has read settings yet.
ASK_ALL_FOR_HELP = """
import click
from click.testing import CliRunner
from app.cli.main import main

def ask(command, words):
    ended = CliRunner().invoke(main, [*words, "--help"], prog_name="mailroom")
    usage = " ".join(["Usage: mailroom", *words])
    print(ended.exit_code == 0 and ended.stdout.startswith(usage), *words)
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                ask(command.get_command(context, name), [*words, name])

ask(main, [])
"""


def test_help_works_whatever_the_settings_are(services: Services) -> None:
    ended = services.run("mailroom", "--help", MAILROOM_PORT="none")
    assert ended.returncode == 0
    assert "MAILROOM_PORT" in ended.stdout
    for environment in ({"MAILROOM_PORT": "none"}, {"MAILROOM_ZENDESK_TOKEN": ""}):
        every = services.run("python", "-c", ASK_ALL_FOR_HELP, **environment)
        assert every.returncode == 0, every.stderr
        lines = every.stdout.splitlines()
        assert "True suspended list" in lines
        assert [line for line in lines if not line.startswith("True")] == []


def test_the_docs_name_every_command() -> None:
    documented = (PROJECT / "docs" / "commands.md").read_text()
    assert [name for name in COMMANDS if f"`mailroom {name}" not in documented] == []


def test_the_docs_name_every_setting_with_its_default() -> None:
    documented = (PROJECT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        default = f"`{default}`" if default not in ("", ()) else ""
        assert f"| `{environment_name(name)}` | {default} | " in documented


@pytest.mark.parametrize(
    ("command", "environment", "sentence"),
    [
        (["web"], {"MAILROOM_PORT": "none"}, "MAILROOM_PORT"),
        (["pause", "--", "--help"], {"MAILROOM_PORT": "none"}, "MAILROOM_PORT"),
        (["erasures"], {"MAILROOM_PORT": "none"}, "MAILROOM_PORT"),
        (["erasures", "export"], {"MAILROOM_PORT": "none"}, "MAILROOM_PORT"),
        (["web"], {"MAILROOM_ENV": "production", "DATABASE_URL": ""}, "DATABASE_URL is missing"),
        (["worker"], {"BROKER_URL": "kafka://localhost"}, "BROKER_URL starts with kafka://"),
        (["migrate"], {"DATABASE_URL": "mysql://localhost"}, "DATABASE_URL has to start with"),
        (["migrate"], {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "the database"),
        (["up"], {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "the database"),
        (["demo"], PRODUCTION, "MAILROOM_ENV=production"),
        (["send"], {"MAILROOM_PORT": "1"}, "no answer from"),
        (["send", "no-such-file.json"], {}, "No such file"),
        (["send", "--url", "nonsense"], {}, "nonsense"),
        *(([*command, "--url", url], ZENDESK, "--url") for command in TAKE_URL for url in NO_URLS),
        (["worker", "--concurrency", "0"], {}, "--concurrency"),
        (["nonsense"], {}, "nonsense"),
    ],
)
def test_errors_are_one_sentence_and_an_exit_status(
    services: Services, command: list[str], environment: dict[str, str], sentence: str
) -> None:
    ended = services.run("mailroom", *command, **environment)
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_said_with_the_mend(services: Services) -> None:
    services.start_web()
    for command in ("web", "up"):
        ended = services.run("mailroom", command)
        assert ended.returncode != 0
        assert "MAILROOM_PORT" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_handler_that_cannot_be_loaded_ends_up_and_worker(services: Services) -> None:
    services.write_handler("raise RuntimeError('no licence')")
    for command in ("worker", "up"):
        ended = services.run("mailroom", command)
        assert ended.returncode != 0
        assert "no licence" in ended.stderr
        assert "MAILROOM_HANDLER" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_send_signs_a_file_or_standard_input(
    services: Services, connection: "psycopg.Connection[dict[str, object]]", tmp_path: Path
) -> None:
    services.start_web()
    file = tmp_path / "email.json"
    file.write_text(json.dumps(email()))
    sent = services.run("mailroom", "send", str(file))
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.startswith("200 ")
    assert json.loads(sent.stdout[4:])["status"] == "accepted"
    url = services.url + WEBHOOK_PATH
    piped = services.run(
        *("mailroom", "send", "--url", url),
        stdin=json.dumps(email()).encode(),
        MAILROOM_WEBHOOK_SECRETS="",
        MAILROOM_SEND_SECRET=SECRET,
    )
    assert piped.returncode == 0, piped.stderr
    refused = services.run("mailroom", "send", stdin=b"{}")
    assert refused.returncode == 1
    assert refused.stdout.startswith("400 ")
    assert states(connection) == {"received": 2}


def test_migrate_brings_an_empty_database_up_to_date(
    services: Services, empty_database_url: str
) -> None:
    first = services.run("mailroom", "migrate", DATABASE_URL=empty_database_url)
    assert first.returncode == 0, first.stderr
    with psycopg.connect(empty_database_url) as connection:
        ran = [app for (app,) in connection.execute("SELECT app_name FROM migration")]
    there_are = len(list((PROJECT / "piccolo_migrations").glob("mailroom_*.py")))
    assert ran.count("mailroom") == there_are
    # Those of users and sessions, too.
    assert first.stdout == f"{len(ran)} migrations ran.\n"
    second = services.run("mailroom", "migrate", DATABASE_URL=empty_database_url)
    assert second.stdout == "The database is up to date.\n"


@pytest.fixture
def durable(databases: Databases) -> Iterator[None]:
    """The server of the tests waits for its disk for once."""
    databases.wait_for_disk(True)
    yield
    databases.wait_for_disk(False)


@pytest.mark.usefixtures("durable")
def test_doctor_finds_all_well(services: Services, broker_url: str) -> None:
    ended = services.run("mailroom", "doctor", BROKER_URL=broker_url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "FAIL" not in ended.stdout


@pytest.mark.parametrize(
    ("environment", "check", "mend"),
    [
        ({"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "database", "DATABASE_URL"),
        ({"BROKER_URL": "redis://127.0.0.1:1"}, "broker", "BROKER_URL"),
        ({"BROKER_URL": "amqp://127.0.0.1:1"}, "broker", "BROKER_URL"),
        ({"BROKER_URL": "redis://u:geheim@127.0.0.1:1?socket_timeout=x"}, "broker", "BROKER_URL"),
        ({"BROKER_URL": "redis://u:geheim@127.0.0.1:1?nosuch=1"}, "broker", "BROKER_URL"),
        ({"BROKER_URL": "amqp://u:geheim@127.0.0.1:1?heartbeat=x"}, "broker", "BROKER_URL"),
        ({"MAILROOM_HANDLER": "nowhere:handle"}, "handler", "MAILROOM_HANDLER"),
        (
            {"MAILROOM_ATTACHMENT_STORE": "file:///dev/null/x"},
            "files",
            "MAILROOM_ATTACHMENT_STORE",
        ),
        (
            {"MAILROOM_WEBHOOK_SECRETS": ZENDESK_PUBLIC_TEST_SECRET},
            "secrets",
            "MAILROOM_WEBHOOK_SECRETS",
        ),
    ],
)
def test_doctor_names_what_is_wrong_and_the_mend(
    services: Services, environment: dict[str, str], check: str, mend: str
) -> None:
    ended = services.run("mailroom", "doctor", "--json", **environment)
    assert ended.returncode == 1
    found = {finding["check"]: finding for finding in json.loads(ended.stdout)}
    assert not found[check]["is_well"]
    assert mend in found[check]["explanation"]
    assert "geheim" not in ended.stdout + ended.stderr


def test_doctor_takes_a_folder_that_cannot_be_used_for_no_fault_of_the_database(
    services: Services, tmp_path: Path
) -> None:
    # One that root cannot use either.
    home = str(tmp_path / ("x" * 300))
    ended = services.run("mailroom", "doctor", "--json", MAILROOM_HOME=home)
    found = {finding["check"]: finding["explanation"] for finding in json.loads(ended.stdout)}
    for check in ("secrets", "disk"):
        assert "MAILROOM_HOME" in found[check], found
        assert home in found[check] and "database" not in found[check], found


def test_doctor_says_whether_zendesk_accepts_the_token(services: Services, tmp_path: Path) -> None:
    with zendesk_in_thread(tmp_path) as zendesk:
        right = services.run("mailroom", "doctor", **zendesk.environment)
        wrong = {**zendesk.environment, "MAILROOM_ZENDESK_TOKEN": "geheim"}
        other = services.run("mailroom", "doctor", **wrong)
    assert re.search("ok   zendesk .*accepts the token, as that of an agent", right.stdout)
    assert re.search("FAIL zendesk .*see MAILROOM_ZENDESK_EMAIL", other.stdout)
    assert "geheim" not in other.stdout + other.stderr


def test_doctor_sees_a_server_that_does_not_wait_for_its_disk(services: Services) -> None:
    ended = services.run("mailroom", "doctor")
    assert ended.returncode == 1
    assert re.search("FAIL database .*fsync is off", ended.stdout)


def test_doctor_refuses_a_postgresql_that_migrations_do_not_run_on(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    # The last version that has no CREATE OR REPLACE TRIGGER.
    connection.execute("CREATE SCHEMA older")
    connection.execute(
        "CREATE FUNCTION older.current_setting(name text) RETURNS text"
        " RETURN CASE name WHEN 'server_version_num' THEN '130023'"
        " ELSE pg_catalog.current_setting(name) END"
    )
    name = psycopg.sql.Identifier(connection.info.dbname)
    path = "ALTER DATABASE {} SET search_path = older, pg_catalog, public"
    connection.execute(psycopg.sql.SQL(path).format(name))
    ended = services.run("mailroom", "doctor")
    assert "PostgreSQL 13 is too old: Mailroom needs 14 or newer" in ended.stdout


@pytest.mark.usefixtures("durable")
def test_doctor_sees_a_database_that_does_not_wait_for_its_disk(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    name = psycopg.sql.Identifier(connection.info.dbname)
    off = psycopg.sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name)
    connection.execute(off)
    ended = services.run("mailroom", "doctor")
    assert ended.returncode == 1
    assert re.search("FAIL database .*synchronous_commit", ended.stdout)


def test_doctor_sees_a_database_that_is_not_migrated(
    services: Services, empty_database_url: str
) -> None:
    ended = services.run("mailroom", "doctor", DATABASE_URL=empty_database_url)
    assert ended.returncode == 1
    assert re.search("FAIL migrations .*mailroom migrate", ended.stdout)


def test_up_prints_what_works_and_stops_in_order(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    up = services.start("mailroom", "up")
    wait_until(lambda: "Ctrl-C stops it." in services.log(), services.log)
    said = services.log()
    health = re.search(r"Health +(\S+)", said)
    assert health is not None
    wait_until(lambda: is_success(health[1]), services.log)
    admin = re.search(r"Admin +(\S+)\n +user (\S+), password (\S+)", said)
    assert admin is not None
    with httpx.Client() as client:
        client.get(admin[1], follow_redirects=True).raise_for_status()
        client.get(f"{admin[1]}public/meta/").raise_for_status()
        signed_in = client.post(
            f"{admin[1]}public/login/",
            json={"username": admin[2], "password": admin[3]},
            headers={"X-CSRFToken": client.cookies["csrftoken"]},
        )
        assert signed_in.is_success, signed_in.text
    curl = re.search(r"^curl .*$", said, re.MULTILINE)
    assert curl is not None
    delivered = subprocess.run(
        shlex.split(curl[0]), check=True, capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert "accepted" in delivered.stdout
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)
    family = psutil.Process(up.pid).children(recursive=True)
    up.terminate()
    assert up.wait(WAIT_SECONDS) == 0
    assert psutil.wait_procs(family, timeout=WAIT_SECONDS)[1] == []


def test_up_starts_its_parts_again_when_they_are_killed(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    services.start("mailroom", "up")
    wait_until(lambda: is_success(f"{services.url}/health/ready"), services.log)
    for part in ("app.cli.main web", "app.worker"):
        killed = [p for p in children(services) if part in " ".join(p.cmdline())]
        assert killed, services.log()
        for process in killed:
            process.kill()
        psutil.wait_procs(killed, timeout=WAIT_SECONDS)
    wait_until(lambda: is_success(f"{services.url}/health/ready"), services.log)
    sent = services.run("mailroom", "send", stdin=json.dumps(email()).encode())
    assert sent.returncode == 0, sent.stderr
    wait_until(lambda: states(connection) == {"completed": 1}, services.log)


def test_killing_the_supervisor_ends_its_parts(services: Services) -> None:
    up = services.start("mailroom", "up")
    wait_until(lambda: is_success(f"{services.url}/health/ready"), services.log)
    family = psutil.Process(up.pid).children(recursive=True)
    assert len(family) >= 3
    up.kill()
    assert psutil.wait_procs(family, timeout=WAIT_SECONDS)[1] == []


def test_piccolos_own_command_makes_an_administrator(services: Services) -> None:
    made = services.run(
        *("piccolo", "user", "create", "--username=erika", f"--password={PASSWORD}"),
        *("--email=erika@example.com", "--is_admin=true", "--is_superuser=true"),
        "--is_active=true",
        PYTHONPATH=str(PROJECT),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    services.start_web()
    with httpx.Client(base_url=services.url) as client:
        assert sign_in(client, "erika").is_success


def test_litestar_runs_the_app_with_nothing_configured(services: Services, tmp_path: Path) -> None:
    port = free_port()
    services.start(
        *("litestar", "--app", "app.main:create_app", "run", "--port", str(port)),
        DATABASE_URL="",
        MAILROOM_HOME=str(tmp_path / "h"),
    )
    wait_until(lambda: is_success(f"http://127.0.0.1:{port}/health/live"), services.log)


def children(services: Services) -> list[psutil.Process]:
    """The processes that this test started, and theirs."""
    return [
        child
        for process in services.processes
        for child in psutil.Process(process.pid).children(recursive=True)
    ]
