"""Users and their sessions in the database: sessions end with the password, and are found by an
index; the last administrator stays one."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import asyncpg
import psycopg
import pytest
from support import wait_until

from app.database.session_guard import LAST_ADMIN
from app.desk.housekeeping import keep_house_once

Connection = psycopg.Connection[dict[str, object]]
NOW = datetime.now()  # noqa: DTZ005 - as Piccolo stores it


def add_user(connection: Connection, name: str) -> object:
    """A user with two sessions. Returns the id."""
    row = connection.execute(
        "INSERT INTO piccolo_user (username, password, email) VALUES (%s, %s, %s) RETURNING id",
        [name, f"hash of {name}", f"{name}@example.com"],
    ).fetchone()
    assert row is not None
    for number in (1, 2):
        add_session(connection, f"{name} {number}", user_id=row["id"])
    return row["id"]


def add_session(
    connection: Connection,
    token: str,
    *,
    user_id: object = 1,
    expiry: timedelta = timedelta(hours=1),
    longest: timedelta = timedelta(days=7),
) -> None:
    connection.execute(
        "INSERT INTO sessions (token, user_id, expiry_date, max_expiry_date)"
        " VALUES (%s, %s, %s, %s)",
        [token, user_id, NOW + expiry, NOW + longest],
    )


def left(connection: Connection, column: str = "token", table: str = "sessions") -> list[object]:
    rows = connection.execute(f"SELECT {column} AS one FROM {table} ORDER BY 1").fetchall()
    return [row["one"] for row in rows]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE piccolo_user SET password = 'new' WHERE username = 'olga'",
        "UPDATE piccolo_user SET password = 'new', first_name = 'Olga' WHERE username = 'olga'",
        "UPDATE piccolo_user SET password = CASE username WHEN 'olga' THEN 'x' ELSE password END",
    ],
)
def test_sessions_end_with_the_password(connection: Connection, change: str) -> None:
    add_user(connection, "olga")
    add_user(connection, "ada")
    connection.execute(change)
    assert left(connection) == ["ada 1", "ada 2"]


def test_other_changes_of_a_user_end_no_session(connection: Connection) -> None:
    add_user(connection, "olga")
    connection.execute("UPDATE piccolo_user SET last_login = now(), password = password")
    assert left(connection) == ["olga 1", "olga 2"]


async def test_what_is_over_is_deleted(
    pool: "asyncpg.Pool[asyncpg.Record]", connection: Connection
) -> None:
    add_session(connection, "valid")
    add_session(connection, "expired", expiry=timedelta(hours=-1))
    add_session(connection, "too old", longest=timedelta(hours=-1))
    connection.execute(
        "INSERT INTO login_attempts (network, began_at, attempts) VALUES"
        " ('old', now() - interval '1 hour', 1), ('new', now(), 1)"
    )
    connection.execute(
        "INSERT INTO sign_in_steps (token_hash, purpose, details, expires_at) VALUES"
        " ('old', 'code', '{}', now() - interval '1 second'),"
        " ('new', 'code', '{}', now() + interval '1 hour')"
    )
    await keep_house_once(pool)
    assert left(connection) == ["valid"]
    assert left(connection, "token_hash", "sign_in_steps") == ["new"]
    assert left(connection, "network", "login_attempts") == ["new"]


def test_a_session_is_found_by_its_index(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO sessions (token, user_id, expiry_date, max_expiry_date)"
        " SELECT 'token ' || n, 1, now(), now() FROM generate_series(1, 10000) AS n"
    )
    connection.execute("ANALYZE sessions")
    plan = connection.execute("EXPLAIN SELECT * FROM sessions WHERE token = 'token 7'").fetchall()
    assert "ix_sessions_token" in str(plan)


def add_admin(connection: Connection, name: str) -> object:
    user_id = add_user(connection, name)
    connection.execute(
        "UPDATE piccolo_user SET superuser = true, active = true, admin = true WHERE id = %s",
        [user_id],
    )
    return user_id


REMOVALS = [
    "UPDATE piccolo_user SET superuser = false",
    "UPDATE piccolo_user SET active = false WHERE username = 'ada'",
    "UPDATE piccolo_user SET admin = false WHERE username = 'ada'",
    "DELETE FROM piccolo_user WHERE username = 'ada'",
    "DELETE FROM piccolo_user",
]


@pytest.mark.parametrize("removal", REMOVALS)
def test_the_last_administrator_stays_one(connection: Connection, removal: str) -> None:
    add_admin(connection, "ada")
    add_user(connection, "olga")
    # One who may not sign in is none.
    add_admin(connection, "otto")
    connection.execute("UPDATE piccolo_user SET active = false WHERE username = 'otto'")
    with pytest.raises(psycopg.errors.CheckViolation, match="make somebody one first") as refused:
        connection.execute(removal)
    assert refused.value.diag.constraint_name == LAST_ADMIN
    assert left(connection, "username", "piccolo_user") == ["ada", "olga", "otto"]


def test_any_other_administrator_may_go(connection: Connection) -> None:
    add_admin(connection, "ada")
    add_admin(connection, "anna")
    for removal in REMOVALS[1:4]:
        with connection.transaction(force_rollback=True):
            connection.execute(removal)
    connection.execute(
        "UPDATE piccolo_user SET superuser = (username = 'anna'), last_name = 'x' WHERE true"
    )
    connection.execute("DELETE FROM piccolo_user WHERE username = 'ada'")


def test_of_two_who_remove_each_other_one_stays(connection: Connection, database_url: str) -> None:
    add_admin(connection, "ada")
    add_admin(connection, "anna")
    remove = "UPDATE piccolo_user SET superuser = false WHERE username = %s"
    waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = %s"
    with (
        psycopg.connect(database_url) as first,
        psycopg.connect(database_url) as second,
        ThreadPoolExecutor(1) as thread,
    ):
        first.execute(remove, ["ada"])
        other = thread.submit(second.execute, remove, ["anna"])
        wait_until(
            lambda: connection.execute(waits, [remove.replace("%s", "$1")]).fetchone() is not None
        )
        first.commit()
        with pytest.raises(psycopg.errors.CheckViolation):
            other.result()
