"""One DATABASE_URL for two drivers: what it says holds for the connections of both."""

import asyncpg
import psycopg
import pytest
from support import make_settings

from app.database.connections import Connect
from app.database.libpq import libpq_parameters
from app.jobs.broker_url import try_broker

SETTINGS = ("search_path", "statement_timeout", "mailroom.note")


@pytest.mark.parametrize(
    "query",
    [
        "search_path=mail%2C%20public&statement_timeout=5000&mailroom.note=a%5Cb+c",
        "options=-c%20search_path=mail,%5C%20public%20-c%20mailroom.note=a%5C%5Cb%5C%20c"
        "&statement_timeout=5000",
    ],
)
async def test_settings_of_the_server_hold_for_both_drivers(database_url: str, query: str) -> None:
    url = f"{database_url}&{query}"
    show = "SELECT " + ", ".join(f"current_setting('{name}')" for name in SETTINGS)
    connection = await Connect(url)(connection_class=asyncpg.Connection)
    by_asyncpg = await connection.fetchrow(show)
    await connection.close()
    with psycopg.connect(**libpq_parameters(url)) as other:
        by_libpq = other.execute(show).fetchone()
    assert tuple(by_asyncpg or ()) == by_libpq == ("mail, public", "5s", "a\\b c")
    # As the workers do.
    try_broker(make_settings(), url)


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("postgresql://u:p%2B+@h:5/d", {"host": "h", "port": "5", "password": "p++"}),
        ("postgresql:///d?host=%2Ftmp%2Fa+b", {"host": "/tmp/a+b", "dbname": "d"}),
        ("postgres://[::1]/?database=other&search_path=a", {"host": "::1", "dbname": "other"}),
        (
            "postgresql://h/d?jit=off&sslmode=require",
            {"sslmode": "require", "options": "-c jit=off"},
        ),
        (
            "postgresql://a,b/d?jit=off",
            {"host": "a,b", "options": "-c jit=off", "target_session_attrs": "read-write"},
        ),
    ],
)
def test_all_else_is_as_libpq_reads_it(url: str, parameters: dict[str, str]) -> None:
    assert libpq_parameters(url).items() >= parameters.items()
