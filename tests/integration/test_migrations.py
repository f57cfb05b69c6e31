"""The migrations, through the real `piccolo` command: forwards, backwards, twice at once, and on
tables that hold emails already."""

import json
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import one_email
import psycopg
import pytest
from databases import Databases
from psycopg.rows import dict_row
from support import PROJECT, WAIT_SECONDS, Services, email, make_settings, signed, wait_until

from app.handlers.extract_text import handle
from app.handlers.loading import as_handler
from app.intake.openapi import WEBHOOK_PATH
from app.jobs.claimer import Claimer
from app.jobs.leases import HeldClaims
from app.models.incoming_email import IncomingEmail

pytestmark = pytest.mark.long

INITIAL = "2026-09-01T09:00:00:000000"
SAGA = "2026-09-15T09:00:00:000000"
STATE_MACHINE = "2026-10-01T09:00:00:000000"
STATUS_INDEX = "2026-10-01T09:00:01:000000"
LEASES = "2026-11-01T09:00:00:000000"
CHECKS = "2026-11-01T09:00:01:000000"
UNSENT_INDEX = "2026-11-01T09:00:02:000000"
QUARANTINE = "2026-11-24T09:00:00:000000"
CLAIMED_BY = "2026-11-24T09:00:01:000000"
DUE_AND_SENT = "2026-11-24T09:00:02:000000"
DESK = "2026-11-24T09:00:03:000000"
TOKENS = "2026-11-24T09:00:04:000000"
SEARCH = "2026-11-24T09:00:05:000000"
WORKERS = "2026-11-24T09:00:06:000000"
METRICS_SCOPE = "2026-11-24T09:00:07:000000"
LOST_CLAIMS = "2026-11-25T00:16:00:000000"
COUNT_LOST_CLAIMS = "2026-11-25T00:17:00:000000"
LOGIN_ATTEMPTS = "2026-11-25T00:19:00:000000"
SESSIONS = "2026-11-25T00:20:00:000000"
QUARANTINE_BOUNDS = "2026-11-25T00:22:00:000000"
EVENTS = "2026-11-25T00:23:00:000000"
ATTACHMENTS = "2026-11-26T00:25:00:000000"
BODIES_APART = "2026-11-26T08:28:00:000000"
DELIVERY = "2026-11-26T10:31:00:000000"
RECEIVERS = "2026-11-26T10:32:00:000000"
DELIVERY_INDEXES = "2026-11-26T10:33:00:000000"
EMAIL_EVENTS = "2026-11-26T10:34:00:000000"
UNSYNCED_INDEX = "2026-11-26T10:35:00:000000"
CHORES = "2026-11-26T10:36:00:000000"
RETENTION = "2026-11-26T10:37:00:000000"
ERASURES = "2026-11-26T10:38:00:000000"
ZENDESK_WATCH = "2026-11-26T10:41:00:000000"
ORIGIN = "2026-11-26T10:42:00:000000"
TICKETS_IN_QUESTION = "2026-11-26T10:43:00:000000"
ALARMS = "2026-11-26T10:44:00:000000"
EMAIL_HOURS = "2026-11-26T10:45:00:000000"
SUSPENDED = "2026-11-26T10:46:00:000000"
ZENDESK_RANGES = "2026-11-26T10:47:00:000000"
ARRIVED_INDEX = "2026-11-26T10:51:00:000000"
ERASURE_FAILURES = "2026-11-26T10:52:00:000000"
CANARIES = "2026-11-26T10:53:00:000000"
BULK_ACTIONS = "2026-11-26T10:55:00:000000"
WORD_INDEX = "2026-11-26T11:01:00:000000"
SAVED_SEARCHES = "2026-11-26T11:02:00:000000"
THROUGHPUT = "2026-11-26T11:03:00:000000"
PROCESSING_PAUSES = "2026-11-26T11:04:00:000000"
ENTRIES_GO = "2026-11-26T11:05:00:000000"
SECRET_USES = "2026-11-26T11:15:00:000000"
SEARCH_IN_BATCHES = "2026-11-26T11:19:00:000000"
UNTOLD_EVENTS = "2026-11-27T01:58:00:000000"
AUDIT = "2026-11-26T10:57:00:000000"
KEEP_AUDIT = "2026-11-26T10:58:00:000000"
ACCOUNTS = "2026-11-26T10:59:00:000000"
LAST_ADMIN = "2026-11-26T11:10:00:000000"
SIGN_IN_STEPS = "2026-11-26T11:11:00:000000"
IDENTITIES = "2026-11-26T11:12:00:000000"
AUDIT_INDEXES = "2026-11-26T11:13:00:000000"
NARROWED_SEARCH = "2026-11-27T01:00:00:000000"
UNSEEN_TICKETS = "2026-11-27T01:20:00:000000"
SIGNED_AT = "2026-11-27T01:30:00:000000"
SUSPENDED_SINCE = "2026-11-27T02:02:00:000000"
UNSTORABLE = "2026-11-27T05:35:00:000000"
MESSAGE_INDEXES = "2026-11-27T20:25:00:000000"
IDS = [
    *(INITIAL, SAGA, STATE_MACHINE, STATUS_INDEX, LEASES),
    *(CHECKS, UNSENT_INDEX, QUARANTINE, CLAIMED_BY, DUE_AND_SENT),
    *(DESK, TOKENS, SEARCH, WORKERS, METRICS_SCOPE),
    *(LOST_CLAIMS, COUNT_LOST_CLAIMS),
    *(LOGIN_ATTEMPTS, SESSIONS),
    *(QUARANTINE_BOUNDS, EVENTS, ATTACHMENTS, BODIES_APART),
    *(DELIVERY, RECEIVERS, DELIVERY_INDEXES),
    *(EMAIL_EVENTS, UNSYNCED_INDEX),
    CHORES,
    *(RETENTION, ERASURES),
    *(ZENDESK_WATCH, ORIGIN, TICKETS_IN_QUESTION),
    *(ALARMS, EMAIL_HOURS, SUSPENDED),
    ZENDESK_RANGES,
    *(ARRIVED_INDEX, ERASURE_FAILURES),
    CANARIES,
    BULK_ACTIONS,
    *(AUDIT, KEEP_AUDIT, ACCOUNTS),
    *(WORD_INDEX, SAVED_SEARCHES),
    *(THROUGHPUT, PROCESSING_PAUSES),
    ENTRIES_GO,
    *(LAST_ADMIN, SIGN_IN_STEPS, IDENTITIES, AUDIT_INDEXES),
    *(SECRET_USES, SEARCH_IN_BATCHES, NARROWED_SEARCH),
    *(UNSEEN_TICKETS, SIGNED_AT, UNTOLD_EVENTS, SUSPENDED_SINCE, UNSTORABLE),
    MESSAGE_INDEXES,
]
# Of the apps that come along: mfa_authenticator 1, session_auth 2, user 3.
OTHERS = 6

ADDED_BY = {
    SAGA: {"sync_status", "sync_error", "sync_retry_count", "idempotency_key"},
    STATE_MACHINE: {"started_at", "completed_at", "retry_count", "attachment_urls"},
    LEASES: {
        "raw_payload",
        "delivery_signature",
        "queued_at",
        "claims",
        "next_attempt_at",
        "lease_expires_at",
        "attempt_errors",
    },
    CLAIMED_BY: {"claimed_by"},
    LOST_CLAIMS: {"lost_claims", "claim_token"},
    EVENTS: {"original_body", "zendesk_account_id", "zendesk_comment_id", "erased_at"},
    DELIVERY: {
        "sync_version",
        "sync_next_attempt_at",
        "sync_token",
        "sync_lease_expires_at",
        "synced_at",
    },
    RETENTION: {"bodies_removed_at"},
    ORIGIN: {"origin"},
    SIGNED_AT: {"signed_at"},
}

FOLDER = PROJECT / "piccolo_migrations"

COLUMNS = """
SELECT ordinal_position, column_name, data_type, udt_name, character_maximum_length,
    is_nullable, column_default
FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = 'incoming_emails'
ORDER BY ordinal_position
"""
CONSTRAINTS = """
SELECT conname, contype, pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE conrelid = 'incoming_emails'::regclass
ORDER BY conname
"""
INDEXES = """
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'incoming_emails' ORDER BY indexname
"""

READ_ALL = """
import asyncio, json
from app.models.incoming_email import IncomingEmail

emails = asyncio.run(IncomingEmail.objects().order_by(IncomingEmail.subject).run())
print(json.dumps([
    [e.subject, e.processing_status, e.sync_status, e.retry_count, e.claims, e.attempt_errors]
    for e in emails
]))
"""

SCHEMA_STATES = """
import asyncio
from app.database.engine import DB
from app.database.migrations import migrate
from app.database.schema_fit import schema_state

async def say():
    state = await schema_state()
    print(state.verdict, "|", state.explanation)

async def execute(sql):
    connection = await DB.get_new_connection()
    await connection.execute(sql)
    await connection.close()

async def main():
    await say()
    print("ran", await migrate())
    await say()
    print("ran", await migrate())
    await execute("INSERT INTO migration (name, app_name) VALUES ('2099-01-01', 'mailroom')")
    await execute("INSERT INTO migration (name, app_name) VALUES ('2099-02-02', 'other')")
    await say()
    await execute(
        "ALTER TABLE incoming_emails DROP COLUMN from_name,"
        " ADD COLUMN brand text NOT NULL DEFAULT '', ADD COLUMN desk text"
    )
    await say()
    await execute("ALTER TABLE incoming_emails ALTER COLUMN brand DROP DEFAULT")
    await say()
    await execute("DELETE FROM migration WHERE name = '2099-01-01'")
    await say()
    await execute("INSERT INTO migration (name, app_name) VALUES ('2099-01-01', 'mailroom')")
    await execute(
        "DELETE FROM migration WHERE name = (SELECT max(name) FROM migration"
        " WHERE app_name = 'mailroom' AND name < '2099')"
    )
    await say()

asyncio.run(main())
"""

# By what the command `piccolo migrations backwards` calls, in one process for all.
TAKE_BACK = """
import asyncio, json
from piccolo.apps.migrations.commands.backwards import run_backwards
from app.database.engine import DB

COLUMNS = (
    "SELECT column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name = 'incoming_emails'"
)
RAN = "SELECT name FROM migration WHERE app_name = 'mailroom' ORDER BY name"

async def main():
    taken_back = []
    for id in [row["name"] for row in await DB.run_ddl(RAN)][:0:-1]:
        result = await run_backwards("mailroom", id, auto_agree=True)
        columns = [row["column_name"] for row in await DB.run_ddl(COLUMNS)]
        ran = [row["name"] for row in await DB.run_ddl(RAN)]
        taken_back.append([id, result.success, columns, ran])
    print(json.dumps(taken_back))

asyncio.run(main())
"""

# What Piccolo's statements find where its command runs, in place of migrations.
ON_WHAT_CONNECTIONS = """
import asyncio
from piccolo.apps.migrations.commands.base import MigrationResult
from piccolo.apps.migrations.commands.forwards import ForwardsMigrationManager, run_forwards
from piccolo_conf import DB

async def run_migrations(manager, app_config):
    sessions = {(await DB.run_ddl("SELECT pg_backend_pid()"))[0][0] for _ in range(3)}
    await DB.run_ddl("SET lock_timeout = 5000")
    print(len(sessions), (await DB.run_ddl("SHOW lock_timeout"))[0][0])
    if manager.migration_id != "all":
        raise OSError(manager.migration_id)
    return MigrationResult(success=True)

ForwardsMigrationManager.run_migrations = run_migrations

async def main():
    await run_forwards("user")
    try:
        await run_forwards("user", "one that fails")
    except OSError as error:
        print(error, DB.pool)
    await DB.start_connection_pool()
    pool = DB.pool
    await run_forwards("user")
    print(DB.pool is pool, pool.is_closing())
    await DB.close_connection_pool()

asyncio.run(main())
"""
SESSIONS_SO_FAR = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"

STORE = """
INSERT INTO incoming_emails (zendesk_ticket_id, from_email, subject, raw_body_html{more})
VALUES ('1', 'erika@example.com', %s, '<p>Guten <b>Tag</b></p>'{values})
RETURNING id
"""


def migrating(services: Services) -> Services:
    """Have the `piccolo` command find the project from any folder."""
    services.environment |= {"PICCOLO_CONF": "piccolo_conf", "PYTHONPATH": str(PROJECT)}
    return services


@pytest.fixture
def empty(empty_database_url: str, tmp_path: Path) -> Services:
    """Commands on an empty database."""
    return migrating(Services(empty_database_url, tmp_path))


@pytest.fixture
def migrated(database_url: str, tmp_path: Path) -> Services:
    """Commands on a database that was migrated before."""
    return migrating(Services(database_url, tmp_path))


def piccolo(services: Services, *arguments: str) -> str:
    """Run `piccolo migrations ...`, and see that it succeeds. Returns what it printed."""
    ended = services.run("piccolo", "migrations", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def python(services: Services, source: str) -> str:
    ended = services.run("python", "-c", source)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def rows(services: Services, query: str) -> list[dict[str, object]]:
    url = services.environment["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(query).fetchall()


def column_names(services: Services) -> set[str]:
    return {str(row["column_name"]) for row in rows(services, COLUMNS)}


def schema(services: Services) -> dict[str, list[dict[str, object]]]:
    """All that there is to know about the table, but for the positions of its columns."""
    columns = [{**row, "ordinal_position": None} for row in rows(services, COLUMNS)]
    return {
        "columns": sorted(columns, key=lambda row: str(row["column_name"])),
        "constraints": rows(services, CONSTRAINTS),
        "indexes": rows(services, INDEXES),
    }


def ran(services: Services) -> list[str]:
    query = "SELECT name FROM migration WHERE app_name = 'mailroom' ORDER BY name"
    return [str(row["name"]) for row in rows(services, query)]


def store(services: Services, subject: str, **more: str) -> UUID:
    """Store an email as the code of an earlier time did: with raw SQL and the columns it knew."""
    query = STORE.format(more="".join(f", {name}" for name in more), values=", %s" * len(more))
    with psycopg.connect(services.environment["DATABASE_URL"], autocommit=True) as connection:
        row = connection.execute(query, [subject, *more.values()]).fetchone()
    assert row is not None
    email_id: UUID = row[0]
    return email_id


def test_forwards_builds_the_whole_schema_and_a_second_run_does_nothing(empty: Services) -> None:
    before = piccolo(empty, "check")
    assert before.count("False") == len(piccolo_lines(before)) > len(IDS)
    (sessions,) = rows(empty, SESSIONS_SO_FAR)
    piccolo(empty, "forwards", "all")
    (and_now,) = rows(empty, SESSIONS_SO_FAR)
    assert ran(empty) == IDS
    # Not one for each statement.
    assert int(str(and_now["sessions"])) - int(str(sessions["sessions"])) < 3 * len(IDS)
    built = schema(empty)
    tables = {row["tablename"] for row in rows(empty, "SELECT tablename FROM pg_tables")}
    assert {"incoming_emails", "piccolo_user", "sessions", "migration"} <= tables
    assert piccolo(empty, "forwards", "all").count("No migrations need to be run") == 5
    assert schema(empty) == built
    after = piccolo(empty, "check")
    assert after.count("True") == len(piccolo_lines(after)) == len(piccolo_lines(before))


def test_statements_of_migrations_share_a_session_and_leave_nothing_set_in_it(
    empty: Services,
) -> None:
    """A pool that runs already is left as it is."""
    printed = python(empty, ON_WHAT_CONNECTIONS).splitlines()
    assert printed == ["1 0", "1 0", "one that fails None", "1 0", "True False"]


def piccolo_lines(output: str) -> list[str]:
    """The lines of `piccolo migrations check` that are about a migration."""
    return [line for line in output.splitlines() if line.endswith(("| True", "| False"))]


def test_each_migration_can_be_taken_back_on_a_table_with_emails_and_run_again(
    migrated: Services,
) -> None:
    built = schema(migrated)
    all_columns = column_names(migrated)
    store(migrated, "kept", idempotency_key="k" * 64)
    expected = set(all_columns)
    taken_back = json.loads(python(migrated, TAKE_BACK).splitlines()[-1])
    assert [step[0] for step in taken_back] == IDS[:0:-1]
    for migration, succeeded, columns, left in taken_back:
        expected -= ADDED_BY.get(migration, set())
        assert succeeded
        assert set(columns) == expected, migration
        assert left == IDS[: IDS.index(migration)]
    assert rows(migrated, INDEXES) == [
        row
        for row in built["indexes"]
        if row["indexname"] in ("incoming_emails_pkey", "incoming_emails_zendesk_webhook_id")
    ]
    piccolo(migrated, "forwards", "mailroom")
    assert schema(migrated) == built
    kept = rows(migrated, "SELECT * FROM incoming_emails")
    assert [row["subject"] for row in kept] == ["kept"]
    assert kept[0]["sync_status"] == "not_applicable"
    assert kept[0]["attempt_errors"] == []


def test_all_migrations_can_be_taken_back_at_once_and_run_again(migrated: Services) -> None:
    built = schema(migrated)
    columns_in_order = rows(migrated, COLUMNS)
    store(migrated, "lost with its table")
    piccolo(migrated, "backwards", "mailroom", "all", "--auto_agree")
    assert rows(migrated, "SELECT to_regclass('incoming_emails') AS found") == [{"found": None}]
    assert ran(migrated) == []
    piccolo(migrated, "forwards", "mailroom")
    assert schema(migrated) == built
    assert rows(migrated, COLUMNS) == columns_in_order


async def test_emails_of_earlier_times_stay_readable_and_processable(empty: Services) -> None:
    piccolo(empty, "forwards", "mailroom", INITIAL)
    ids = [store(empty, "a: of the first version")]
    piccolo(empty, "forwards", "mailroom", SAGA)
    ids.append(store(empty, "b: before the state machine", idempotency_key="b"))
    piccolo(empty, "forwards", "mailroom", STATUS_INDEX)
    attachments = '[{"url": "https://example.com/1", "filename": "rechnung.pdf"}]'
    ids.append(store(empty, "c: before the leases", attachment_urls=attachments))
    piccolo(empty, "forwards", "mailroom", CHECKS)
    ids.append(store(empty, "d: before the last index", raw_payload='{"x": 1}'))
    piccolo(empty, "forwards", "mailroom")

    read = json.loads(python(empty, READ_ALL))
    assert [row[0][0] for row in read] == ["a", "b", "c", "d"]
    assert [row[1:] for row in read] == [["received", "not_applicable", 0, 0, "[]"]] * 4

    url = empty.environment["DATABASE_URL"]
    async with asyncpg.create_pool(url, min_size=0, max_size=2) as pool:
        claimer = Claimer(
            make_settings(),
            as_handler(handle, threads=1),
            pool,
            HeldClaims(),
            one_email.late_columns(),
        )
        for email_id in ids:
            await one_email.process(claimer, email_id)
    done = rows(empty, "SELECT * FROM incoming_emails ORDER BY subject")
    assert [row["processing_status"] for row in done] == ["completed"] * 4
    assert [row["cleaned_body"] for row in done] == ["Guten Tag"] * 4
    assert [row["extracted_data"]["attachments"] for row in done] == [0, 0, 1, 0]  # type: ignore[index]


def test_the_dispatchers_indexes_exist_under_their_names(migrated: Services) -> None:
    definitions = {str(row["indexname"]): str(row["indexdef"]) for row in rows(migrated, INDEXES)}
    status_received = definitions["ix_incoming_emails_status_received"]
    assert status_received.endswith("USING btree (processing_status, received_at)")
    due = definitions["ix_incoming_emails_without_message"]
    assert "COALESCE(next_attempt_at, '-infinity'::timestamp with time zone), received_at)" in due
    assert "'queued'" in due
    assert "(queued_at IS NULL)" in due
    sent = definitions["ix_incoming_emails_with_message"]
    assert "USING btree (queued_at) WHERE" in sent
    assert "'queued'" in sent
    assert "(queued_at IS NOT NULL)" in sent
    for gone in ("unsent", "sent", "due"):
        assert f"ix_incoming_emails_{gone}" not in definitions
    assert rows(migrated, "SELECT indexrelid FROM pg_index WHERE NOT indisvalid") == []


def test_an_index_whose_building_was_interrupted_is_built_anew(
    empty: Services, migrated: Services
) -> None:
    built = rows(migrated, INDEXES)
    piccolo(empty, "forwards", "mailroom", STATE_MACHINE)
    store(empty, "one")
    store(empty, "another of the same ticket")
    url = empty.environment["DATABASE_URL"]
    leftovers = ("ix_incoming_emails_status_received", "ix_incoming_emails_with_message")
    for name in leftovers:
        with (
            psycopg.connect(url, autocommit=True) as connection,
            pytest.raises(psycopg.errors.UniqueViolation),
        ):
            connection.execute(
                f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON incoming_emails (zendesk_ticket_id)"
            )
    invalid = "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid"
    assert {row["name"] for row in rows(empty, invalid)} == set(leftovers)
    piccolo(empty, "forwards", "mailroom")
    assert rows(empty, invalid) == []
    assert rows(empty, INDEXES) == built


def test_new_with_auto_finds_nothing_to_do(migrated: Services) -> None:
    before = {path: path.read_bytes() for path in FOLDER.glob("*.py")}
    try:
        output = piccolo(migrated, "new", "mailroom", "--auto")
        after = {path: path.read_bytes() for path in FOLDER.glob("*.py")}
    finally:
        for path in set(FOLDER.glob("*.py")) - set(before):
            path.unlink()
    assert "No changes detected" in output
    assert after == before


def test_the_migrated_schema_equals_the_table_class(
    migrated: Services, empty_database_url: str
) -> None:
    from_class = Services(empty_database_url, migrated.folder)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for statement in IncomingEmail.create_table().ddl:
            connection.execute(statement.encode())
    columns = rows(migrated, COLUMNS)
    names = [column._meta.name for column in IncomingEmail._meta.columns]
    assert [row["column_name"] for row in columns] == names
    assert columns == rows(from_class, COLUMNS)
    assert rows(migrated, CONSTRAINTS) == rows(from_class, CONSTRAINTS)


@pytest.mark.parametrize("column", ["processing_status", "sync_status"])
def test_the_database_refuses_a_state_that_does_not_exist(migrated: Services, column: str) -> None:
    store(migrated, "of a state")
    with psycopg.connect(migrated.environment["DATABASE_URL"], autocommit=True) as connection:
        for state in ("", "done", "RECEIVED", "failed "):
            with pytest.raises(psycopg.errors.CheckViolation, match=f"check_{column}"):
                store(migrated, "of no state", **{column: state})
            with pytest.raises(psycopg.errors.CheckViolation, match=f"check_{column}"):
                connection.execute(f"UPDATE incoming_emails SET {column} = %s", [state])


@pytest.mark.parametrize("round_number", range(3))
def test_two_forwards_at_once_both_succeed(
    databases: Databases, tmp_path: Path, round_number: int
) -> None:
    url = databases.create()
    services = migrating(Services(url, tmp_path))
    try:
        both = [services.start("piccolo", "migrations", "forwards", "all") for _ in range(2)]
        assert [process.wait(WAIT_SECONDS) for process in both] == [0, 0], services.log()
        assert ran(services) == IDS
        assert len(rows(services, "SELECT name FROM migration")) == len(IDS) + OTHERS
        assert rows(services, "SELECT indexrelid FROM pg_index WHERE NOT indisvalid") == []
    finally:
        services.end()
        databases.drop(url)


def test_emails_come_in_while_the_indexes_are_built(empty: Services) -> None:
    piccolo(empty, "forwards", "mailroom", STATE_MACHINE)
    url = empty.environment["DATABASE_URL"]
    with psycopg.connect(url) as writer:
        # Its transaction stays open, so the build can not end before it.
        writer.execute("INSERT INTO incoming_emails (subject) VALUES ('first')")
        building = empty.start("piccolo", "migrations", "forwards", "mailroom")
        waiting = "SELECT 1 FROM pg_stat_progress_create_index WHERE lockers_total > 0"
        try:
            wait_until(lambda: rows(empty, waiting), empty.log)
            assert store(empty, "second") is not None
            assert building.poll() is None
            writer.commit()
            assert building.wait(WAIT_SECONDS) == 0, empty.log()
        finally:
            empty.end()
    assert rows(empty, "SELECT indexrelid FROM pg_index WHERE NOT indisvalid") == []
    assert len(rows(empty, "SELECT 1 FROM incoming_emails")) == 2


def test_the_state_of_the_schema_is_told_and_migrate_brings_it_up_to_date(empty: Services) -> None:
    lines = python(empty, SCHEMA_STATES).splitlines()
    older, first, current, second, newer, too_new, required, changed, both = lines
    assert older.startswith("older | the database is older than the code")
    assert all(migration in older for migration in IDS)
    assert "mailroom migrate" in older
    assert first == f"ran {len(IDS) + OTHERS}"
    assert current == "current | the database fits the code"
    assert second == "ran 0"
    assert newer.startswith("newer | the database is newer than the code (unknown: 2099-01-01)")
    assert too_new.startswith(
        "too new | the database is too new for this code (from_name is missing): deploy the version"
        " of Mailroom that brought 2099-01-01"
    )
    assert too_new.endswith("`piccolo migrations backwards mailroom 2099-01-01`")
    assert "(from_name is missing; brand has to be filled, and is unknown)" in required
    assert changed.startswith("changed | the table of emails was changed by something else")
    assert both.startswith(f"older | the database is older than the code (not yet run: {IDS[-1]})")


def test_a_migration_that_fails_is_named_and_can_be_repeated(empty: Services) -> None:
    url = empty.environment["DATABASE_URL"]
    piccolo(empty, "forwards", "mailroom", SAGA)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE incoming_emails ADD COLUMN retry_count integer")
    ended = empty.run("mailroom", "migrate")
    assert ended.returncode == 1
    assert ended.stderr.startswith("mailroom: a migration failed")
    assert "retry_count" in ended.stderr
    assert STATE_MACHINE in ended.stderr
    assert "Traceback" not in ended.stderr
    # What ran before it stays, of itself there is nothing.
    assert ran(empty) == [INITIAL, SAGA]
    assert "started_at" not in column_names(empty)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE incoming_emails DROP COLUMN retry_count")
    assert empty.run("mailroom", "migrate").stdout == f"{len(IDS) - 2 + OTHERS} migrations ran.\n"
    assert empty.run("mailroom", "migrate").stdout == "The database is up to date.\n"


def test_missing_tables_of_users_and_sessions_are_told_and_email_is_taken(
    empty: Services,
) -> None:
    piccolo(empty, "forwards", "mailroom")
    found = {
        each["check"]: each for each in json.loads(empty.run("mailroom", "doctor", "--json").stdout)
    }
    assert not found["migrations"]["is_well"]
    explanation = found["migrations"]["explanation"]
    apps = ("not yet run: mfa_authenticator 20", ", session_auth 20", ", user 20")
    assert all(app in explanation for app in apps)
    assert IDS[0] not in explanation
    empty.start_web()
    try:
        ready = httpx.get(f"{empty.url}/health/ready")
        assert ready.status_code == 200
        assert ready.json()["checks"]["migrations"] == explanation
    finally:
        empty.end()
    assert empty.run("mailroom", "migrate").stdout == f"{OTHERS} migrations ran.\n"


def test_readiness_fails_on_a_schema_that_is_too_old_or_too_new_with_the_command_that_mends_it(
    migrated: Services,
) -> None:
    url = migrated.environment["DATABASE_URL"]
    record = "INSERT INTO migration (name, app_name, ran_on) VALUES (%s, 'mailroom', now())"

    def wait_for(status: int) -> str:
        wait_until(lambda: httpx.get(f"{migrated.url}/health/ready").status_code == status)
        found: str = httpx.get(f"{migrated.url}/health/ready").json()["checks"]["migrations"]
        return found

    migrated.start_web()
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            piccolo(migrated, "backwards", "mailroom", IDS[-1], "--auto_agree")
            assert "run `mailroom migrate`" in wait_for(503)
            migrated.run("mailroom", "migrate")
            assert wait_for(200) == "the database fits the code"
            connection.execute(record, ["2099-01-01"])
            connection.execute("ALTER TABLE incoming_emails ADD COLUMN brand text")
            wait_until(lambda: "newer than the code" in wait_for(200))
            payload = signed(email())
            assert httpx.post(migrated.url + WEBHOOK_PATH, **payload).status_code == 200
            connection.execute("ALTER TABLE incoming_emails DROP COLUMN subject")
            assert "backwards mailroom 2099-01-01`" in wait_for(503)
            # So that Zendesk comes again, to a process that can.
            payload = signed(email())
            assert httpx.post(migrated.url + WEBHOOK_PATH, **payload).status_code == 503
        finally:
            migrated.end()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_email_is_refused_with_the_mend(
    databases: Databases, tmp_path: Path, encoding: str
) -> None:
    url = databases.create(encoding=encoding)
    services = migrating(Services(url, tmp_path))
    said = f"encoding is {encoding}, which cannot hold every email"
    try:
        for command in (("mailroom", "migrate"), ("piccolo", "migrations", "forwards", "all")):
            ended = services.run(*command)
            assert ended.returncode == 1
            assert said in ended.stdout + ended.stderr
            assert "ENCODING 'UTF8' TEMPLATE template0" in ended.stdout + ended.stderr
        doctor = services.run("mailroom", "doctor")
        assert doctor.returncode == 1
        assert said in doctor.stdout
        services.start_web()
        ready = httpx.get(f"{services.url}/health/ready")
        assert ready.status_code == 503
        assert said in ready.json()["checks"]["migrations"]
        assert said in services.log()
        assert rows(services, "SELECT to_regclass('incoming_emails') AS found") == [{"found": None}]
    finally:
        services.end()
        databases.drop(url)


def test_a_database_that_is_away_is_told_in_one_sentence(empty: Services) -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    ended = empty.run("mailroom", "migrate", DATABASE_URL=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith("mailroom: the database cannot be reached")
    assert "127.0.0.1" in ended.stderr
    assert "DATABASE_URL" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_that_does_not_exist_is_told_in_one_sentence(empty: Services) -> None:
    url = empty.environment["DATABASE_URL"].replace("/test_", "/no_such_")
    ended = empty.run("mailroom", "migrate", DATABASE_URL=url)
    assert ended.returncode == 1
    assert ended.stderr.startswith("mailroom: the database cannot be reached")
    assert "does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_forwards_with_nothing_configured_runs_on_the_embedded_database(empty: Services) -> None:
    del empty.environment["DATABASE_URL"]
    piccolo(empty, "forwards", "all")
    lines = piccolo_lines(piccolo(empty, "check"))
    assert len(lines) == len(IDS) + OTHERS
    assert all(line.endswith("True") for line in lines)
    assert (empty.folder / "home" / "postgres").is_dir()
