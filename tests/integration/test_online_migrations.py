"""Migrations beside webhooks and open readers: nothing has to stop for them, nothing is waited for
with a place in the line, and one that was killed is taken up again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from support import PROJECT, Services, email, signed, wait_until

pytestmark = pytest.mark.long

INITIAL = "2026-09-01T09:00:00:000000"
SAGA = "2026-09-15T09:00:00:000000"
LEASES = "2026-11-01T09:00:00:000000"
CHECKS = "2026-11-01T09:00:01:000000"

# What a statement must not do to a table with rows while it holds off those who write there.
WATCH = """
CREATE TABLE test_seen (what text);
CREATE FUNCTION test_look() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_seen
    SELECT format('%s: %s was scanned under %s', current_query(), s.relid::regclass, l.mode)
    FROM pg_stat_xact_user_tables AS s
    JOIN pg_locks AS l ON l.relation = s.relid AND l.pid = pg_backend_pid()
    WHERE s.seq_scan > 0 AND pg_relation_size(s.relid) > 0
        AND l.mode IN
            ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');
END $$;
CREATE FUNCTION test_look_at_rewrite() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_seen
    SELECT format(
        '%s: %s was rewritten', current_query(), pg_event_trigger_table_rewrite_oid()::regclass
    );
END $$;
CREATE EVENT TRIGGER test_scans ON ddl_command_end EXECUTE FUNCTION test_look();
CREATE EVENT TRIGGER test_rewrites ON table_rewrite EXECUTE FUNCTION test_look_at_rewrite();
"""

EACH_BESIDE_A_READER = """
import asyncio, contextlib

import asyncpg
from piccolo.apps.migrations.commands.backwards import run_backwards
from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.migrations.commands.forwards import run_forwards
from structlog.testing import capture_logs

from app.database import online_migration, table_locks
from app.database.engine import DB
from app.piccolo_app import APP_CONFIG

table_locks.TELL_AFTER_SECONDS = 0
TABLES = (
    "SELECT tablename FROM pg_tables"
    " WHERE schemaname = 'public' AND tablename NOT IN ('migration', 'test_seen')"
)
WRITE = "INSERT INTO incoming_emails DEFAULT VALUES"


async def beside_a_reader(change, writer):
    reader = await asyncpg.connect(DB.url)
    tables = [row["tablename"] for row in await writer.fetch(TABLES)]
    for table in tables:
        with contextlib.suppress(asyncpg.IntegrityConstraintViolationError):
            await writer.execute(f"INSERT INTO {table} DEFAULT VALUES")
    with capture_logs() as logs:
        async with reader.transaction():
            for table in tables:
                await reader.execute(f"SELECT FROM {table}")
            running = asyncio.create_task(change)
            while not (running.done() or logs):
                if await writer.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    break
                await asyncio.sleep(0.01)
            waited = not running.done()
            for _ in range(5 if "incoming_emails" in tables else 0):
                await writer.execute(WRITE)
        result = await running
        assert result.success, result
    await reader.close()
    return waited


async def main():
    migrations = BaseMigrationManager().get_migration_modules(
        APP_CONFIG.resolved_migrations_folder_path
    )
    writer = await asyncpg.connect(DB.url)
    await writer.execute("SET lock_timeout = '30s'")
    waited = 0
    for id in sorted(migrations):
        manager = await migrations[id].forwards()
        assert isinstance(manager, online_migration.OnlineMigration), id
        waited += await beside_a_reader(run_forwards("mailroom", id), writer)
    print("waited forwards:", waited)
    waited = 0
    for id in sorted(migrations, reverse=True):
        waited += await beside_a_reader(run_backwards("mailroom", id, auto_agree=True), writer)
    print("waited backwards:", waited)
    await writer.close()

asyncio.run(main())
"""

EACH_TWICE = """
import asyncio

from piccolo.apps.migrations.commands.base import BaseMigrationManager

from app.database.engine import DB
from app.piccolo_app import APP_CONFIG

SCHEMA = (
    "SELECT table_name || column_name || data_type AS one FROM information_schema.columns"
    " WHERE table_schema = 'public' UNION ALL SELECT indexdef FROM pg_indexes"
    " WHERE schemaname = 'public' UNION ALL SELECT conname || pg_get_constraintdef(oid)"
    " || convalidated FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1"
)


async def main():
    migrations = BaseMigrationManager().get_migration_modules(
        APP_CONFIG.resolved_migrations_folder_path
    )
    for id in sorted(migrations):
        await (await migrations[id].forwards()).run()
        made = await DB.run_ddl(SCHEMA)
        # Killed before Piccolo's record of it.
        await (await migrations[id].forwards()).run()
        assert await DB.run_ddl(SCHEMA) == made, id
    print("repeated:", len(migrations))

asyncio.run(main())
"""


ASK_AT_ONCE = """
import asyncio
from piccolo.apps.migrations.commands.forwards import run_forwards
from app.database import table_locks

table_locks.HOLDERS_SECONDS = 0
assert asyncio.run(run_forwards("mailroom", "{id}")).success
"""


@pytest.fixture
def commands(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Services]:
    """Commands on a database, which is migrated where the test is not about an empty one."""
    name = "empty_database_url" if request.param == "empty" else "database_url"
    services = Services(request.getfixturevalue(name), tmp_path)
    services.environment |= {"PICCOLO_CONF": "piccolo_conf", "PYTHONPATH": str(PROJECT)}
    yield services
    services.end()


empty = pytest.mark.parametrize("commands", ["empty"], indirect=True)
migrated = pytest.mark.parametrize("commands", ["migrated"], indirect=True)


def piccolo(commands: Services, *arguments: str) -> str:
    ended = commands.run("piccolo", "migrations", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def connect(commands: Services, **options: bool) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(commands.environment["DATABASE_URL"], **options)  # type: ignore[arg-type]


def ask(commands: Services, query: str) -> list[object]:
    with connect(commands, autocommit=True) as connection:
        return [row[0] for row in connection.execute(query.encode())]


def constraints_and_indexes(commands: Services) -> list[object]:
    return [
        *ask(
            commands,
            "SELECT conname || ' ' || pg_get_constraintdef(oid) || ' ' || convalidated"
            " FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY conname",
        ),
        *ask(commands, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
    ]


@empty
def test_no_migration_scans_a_table_under_its_lock_or_has_webhooks_wait_behind_a_reader(
    commands: Services,
) -> None:
    with connect(commands, autocommit=True) as connection:
        connection.execute(WATCH.encode())
    ended = commands.run("python", "-c", EACH_BESIDE_A_READER)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ask(commands, "SELECT what FROM test_seen") == []
    # Five change the columns or checks of a table that is read; so the test has tested something.
    told = dict(line.rsplit(":", 1) for line in ended.stdout.splitlines() if "waited" in line)
    assert all(int(count) >= 5 for count in told.values()), told


@migrated
@pytest.mark.parametrize(
    "command", [("mailroom", "migrate"), ("piccolo", "migrations", "forwards", "all")]
)
def test_webhooks_are_stored_while_a_migration_waits_for_a_reader(
    commands: Services, command: tuple[str, ...]
) -> None:
    with connect(commands, autocommit=True) as connection:
        # All that a web process of this version needs is there.
        connection.execute(
            b"ALTER TABLE incoming_emails DROP CONSTRAINT check_processing_status,"
            b" DROP CONSTRAINT check_sync_status"
        )
        connection.execute("DELETE FROM migration WHERE name = %s", (CHECKS,))
    commands.start_web()
    with connect(commands) as reader:
        reader.execute("SELECT FROM incoming_emails")
        migrating = commands.start(*command)
        wait_until(lambda: "migration_waits" in commands.log(), commands.log)
        assert str(reader.info.backend_pid) in commands.log()
        answers = [
            httpx.post(
                f"{commands.url}/api/v1/zendesk/webhook", **signed(email()), timeout=30
            ).status_code
            for _ in range(20)
        ]
        assert answers == [200] * 20
        assert migrating.poll() is None
    assert migrating.wait(60) == 0, commands.log()
    assert ask(commands, "SELECT count(*) FROM incoming_emails") == [20]


@empty
def test_webhooks_are_stored_while_a_migration_waits_for_a_vacuum(commands: Services) -> None:
    piccolo(commands, "forwards", "mailroom", LEASES)
    waiting = (
        "SELECT mode FROM pg_locks WHERE NOT granted AND relation = 'incoming_emails'::regclass"
    )
    with connect(commands) as vacuum:
        # A vacuum's lock. It has to be asked for: it may last for hours.
        vacuum.execute("LOCK TABLE incoming_emails IN SHARE UPDATE EXCLUSIVE MODE")
        migrating = commands.start("python", "-c", ASK_AT_ONCE.format(id=CHECKS))
        wait_until(lambda: ask(commands, waiting), commands.log)
        assert ask(commands, waiting) == ["ShareUpdateExclusiveLock"]
        with connect(commands, autocommit=True) as writer:
            writer.execute("INSERT INTO incoming_emails (subject) VALUES ('stored')")
        assert migrating.poll() is None
    assert migrating.wait(60) == 0, commands.log()


@empty
def test_a_lock_that_comes_between_is_given_up_and_tried_again(commands: Services) -> None:
    piccolo(commands, "forwards", "mailroom", LEASES)
    with connect(commands, autocommit=True) as connection:
        # Each look at who holds the table finds nobody; the first change meets a lock all the same.
        connection.execute(b"CREATE TABLE test_tries (id serial)")
        connection.execute(
            b"""
            CREATE FUNCTION test_hold() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('test_tries_id_seq') = 1 THEN
                    RAISE lock_not_available;
                END IF;
            END $$"""
        )
        connection.execute(
            b"CREATE EVENT TRIGGER test_locks ON ddl_command_start WHEN TAG IN ('ALTER TABLE')"
            b" EXECUTE FUNCTION test_hold()"
        )
    assert "migration_repeats" in piccolo(commands, "forwards", "mailroom", CHECKS)
    checks = "SELECT conname FROM pg_constraint WHERE conname LIKE 'check_%' AND convalidated"
    assert set(ask(commands, checks)) == {"check_processing_status", "check_sync_status"}


@empty
def test_a_migration_that_was_killed_while_a_unique_index_was_built_is_taken_up(
    commands: Services, database_url: str, tmp_path: Path
) -> None:
    built = constraints_and_indexes(Services(database_url, tmp_path))
    piccolo(commands, "forwards", "mailroom", INITIAL)
    building = "SELECT pid FROM pg_stat_progress_create_index WHERE lockers_total > 0"
    with connect(commands, autocommit=True) as writer:
        writer.execute("INSERT INTO incoming_emails (subject) VALUES ('kept')")
    with connect(commands) as reader:
        # It holds no table, so columns can be added; but a build cannot end before its snapshot.
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        migrating = commands.start("piccolo", "migrations", "forwards", "mailroom", SAGA)
        wait_until(lambda: ask(commands, building), commands.log)
        os.kill(migrating.pid, signal.SIGKILL)
        ask(commands, f"SELECT pg_terminate_backend(pid) FROM ({building}) AS b")
        wait_until(lambda: not ask(commands, building), commands.log)
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
    assert ask(commands, invalid) == ["incoming_emails_idempotency_key_key"]
    piccolo(commands, "forwards", "all")
    assert constraints_and_indexes(commands) == built
    assert ask(commands, "SELECT subject FROM incoming_emails") == ["kept"]


@empty
def test_each_migration_that_was_killed_before_its_record_is_taken_up(commands: Services) -> None:
    ended = commands.run("python", "-c", EACH_TWICE)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = len(list((PROJECT / "piccolo_migrations").glob("mailroom_*.py")))
    assert f"repeated: {files}" in ended.stdout
    piccolo(commands, "forwards", "mailroom")


@empty
def test_a_preview_prints_the_statements_and_changes_nothing(commands: Services) -> None:
    piccolo(commands, "forwards", "mailroom", "1")
    before = constraints_and_indexes(commands)
    printed = piccolo(commands, "forwards", "mailroom", "--preview")
    assert 'ADD COLUMN "idempotency_key" VARCHAR(64) DEFAULT null' in printed
    assert (
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS incoming_emails_idempotency_key_key"
        ' ON incoming_emails ("idempotency_key");'
    ) in printed
    assert "UNIQUE USING INDEX incoming_emails_idempotency_key_key;" in printed
    assert "NOT VALID" in printed
    assert "ALTER TABLE incoming_emails SET (toast_tuple_target = 512);" in printed
    assert constraints_and_indexes(commands) == before
