"""URLs of several hosts, and which errors mean that a connection is of no further use."""

import pytest
from support import make_settings

from app.database.connections import can_write, each_host
from app.database.errors import CANNOT_ASK, DATABASE_AWAY, is_spent
from app.pauses import GrowingPause

TWO = "postgresql://mailroom:tiger@one:5433,two/mailroom"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@one/db", ["postgresql://u:p@one/db"]),
        ("postgresql:///db", ["postgresql:///db"]),
        (TWO, [f"postgresql://mailroom:tiger@{host}/mailroom" for host in ("one:5433", "two")]),
        (
            "postgresql://[::1]:5433,[::2]/db?sslmode=require&connect_timeout=3&keepalives=1",
            ["postgresql://[::1]:5433/db?sslmode=require", "postgresql://[::2]/db?sslmode=require"],
        ),
        (
            "postgresql://u@/db?host=%2Frun%2Fpg&port=5432",
            ["postgresql://u@/db?host=%2Frun%2Fpg&port=5432"],
        ),
    ],
)
def test_each_host_has_its_url(url: str, hosts: list[str]) -> None:
    assert each_host(url) == hosts


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("postgresql://one/db", "postgresql://one/db"),
        (TWO, f"{TWO}?target_session_attrs=read-write"),
        (f"{TWO}?sslmode=require", f"{TWO}?sslmode=require&target_session_attrs=read-write"),
        (f"{TWO}?target_session_attrs=any", f"{TWO}?target_session_attrs=any"),
    ],
)
def test_of_several_hosts_the_one_that_can_write_is_asked_for(url: str, asked: str) -> None:
    assert can_write(url) == asked


@pytest.mark.parametrize(
    "url",
    [
        TWO,
        "postgresql://one,two,three/db",
        "postgresql://u:p%2C@[::1]:5432,[::2]:5433/db?target_session_attrs=read-write",
    ],
)
def test_the_settings_take_several_hosts(url: str) -> None:
    assert make_settings(database_url=url, broker_url=url).database_url == url


@pytest.mark.parametrize("hosts", ["one:x,two", "one,two:99999", "one:0,two"])
def test_the_settings_refuse_a_wrong_port_among_several_hosts(hosts: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL is not a URL"):
        make_settings(database_url=f"postgresql://{hosts}/db")


@pytest.mark.parametrize(
    ("sqlstate", "spent"),
    [
        *((code, True) for code in ("25006", "57P01", "57P02", "57P03", "57P04", "57P05")),
        *((code, True) for code in ("25P03", "25P04", "08000", "08006", "08P01")),
        *((code, False) for code in (None, "23505", "40001", "53100", "57014", "25P02", "42P01")),
    ],
)
def test_which_errors_end_a_connection(sqlstate: str | None, spent: bool) -> None:
    assert is_spent(sqlstate) is spent


def test_a_pause_grows_to_its_longest_and_begins_anew() -> None:
    pause = GrowingPause(1.0, 5.0)
    assert pause.is_first
    assert [pause.next_seconds() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert not pause.is_first
    pause.reset()
    assert pause.is_first
    assert pause.next_seconds() == 1.0


def test_whoever_gives_up_on_the_database_gives_up_on_all_that_others_wait_for() -> None:
    assert all(issubclass(error, CANNOT_ASK) for error in DATABASE_AWAY)
