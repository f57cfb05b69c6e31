"""The databases of the tests, on one server. Making one copies hundreds of files, so one in which
nothing is left of a test but rows is emptied and lent again, under another name."""

import contextlib
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
# What a test may have changed besides rows: a catalog's row has the number of the transaction that
# wrote it last. TRUNCATE writes those of `pg_class` again, so there it is the columns that tell.
# Statistics of rows that are gone would decide plans.
SCHEMA = """
SELECT md5(string_agg(one, ' ' ORDER BY one)) FROM (
    SELECT concat_ws('.', oid, relname, relnamespace, relkind, relpersistence, reloptions,
        relrowsecurity, relhassubclass, relowner)
    FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT concat_ws('.', attrelid, attnum, xmin) FROM pg_attribute
    WHERE attrelid >= 16384
    UNION ALL SELECT concat_ws('.', starelid, staattnum) FROM pg_statistic
    WHERE starelid >= 16384
    UNION ALL SELECT concat_ws('.', indexrelid, xmin) FROM pg_index WHERE indexrelid >= 16384
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_attrdef
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_event_trigger
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_extension
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_namespace
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_publication
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_trigger
    UNION ALL SELECT concat_ws('.', oid, xmin) FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT concat_ws('.', setdatabase, setrole, setconfig) FROM pg_db_role_setting
) AS all_of_it (one)
"""
END_CONNECTIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Strategies and providers of locales came with this version.
STRATEGIES_SINCE = 15_00_00


class Databases:
    """Databases on one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        with self._connect(url) as connection:
            self._version = connection.info.server_version
        self._template: str | None = None
        self._migrated: set[str] = set()
        self._spare: list[str] = []

    def use_template(self, url: str) -> None:
        """Have this database copied for those who want a migrated one."""
        with self._connect(url) as connection:
            tables = [table for (table,) in connection.execute(TABLES)]
            self._kept = [table for table in tables if _rows(connection, table) != (None,)]
            self._filled_by_tests = [table for table in tables if table not in self._kept]
            self._sequences = [
                name
                for (name,) in connection.execute(
                    "SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences"
                    " WHERE last_value IS NULL"
                )
            ]
            self._unchanged = self._look(connection)
        self._template = self.name_of(url)

    def create(self, *, migrated: bool = False, encoding: str = "") -> str:
        """Make a database. Returns its URL."""
        name = f"test_{uuid4().hex}"
        make = f'CREATE DATABASE "{name}"'
        if migrated:
            if self._spare:
                # A name of its own, because what one test's process knows by it is not another's.
                make = f'ALTER DATABASE "{self._spare.pop()}" RENAME TO "{name}"'
            else:
                make += f' TEMPLATE "{self._template}"'
                if self._version >= STRATEGIES_SINCE:
                    make += " STRATEGY file_copy"
            self._migrated.add(name)
        if encoding:
            make += f" TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
            if self._version >= STRATEGIES_SINCE:
                make += " LOCALE_PROVIDER libc"
        with self._connect(self._url) as connection:
            connection.execute(make)
        return self.url_of(name)

    def url_of(self, name: str) -> str:
        return self._url.replace("/mailroom?", f"/{name}?")

    def empty(self, url: str) -> None:
        """Take all rows out of a migrated database but those that migrations put there."""
        with self._connect(url) as connection:
            self._empty(connection)

    def drop(self, url: str) -> None:
        """End all connections to a database and do away with it."""
        name = self.name_of(url)
        if name in self._migrated and self._can_be_lent_again(url):
            self._spare.append(name)
        else:
            with self._connect(self._url) as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        self._migrated.discard(name)

    def wait_for_disk(self, does_wait: bool) -> None:
        """Have the server wait for its disk at each commit, as it does without the tests."""
        value = "on" if does_wait else "off"
        with self._connect(self._url) as connection:
            connection.execute(f"ALTER SYSTEM SET fsync = {value}")
            connection.execute("SELECT pg_reload_conf()")
        # Who connects after the server has read it, goes by it.
        while True:
            with self._connect(self._url) as connection:
                if connection.execute("SHOW fsync").fetchone() == (value,):
                    return

    def let_no_vacuum_run(self) -> None:
        """Have the server look after no table by itself: a template with statistics is no longer
        what its copies are compared with, and plans would depend on how long the tests take."""
        with self._connect(self._url) as connection:
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")

    @staticmethod
    def name_of(url: str) -> str:
        return urlsplit(url).path.removeprefix("/")

    def _can_be_lent_again(self, url: str) -> bool:
        with contextlib.suppress(psycopg.Error), self._connect(url) as connection:
            connection.execute(END_CONNECTIONS)
            if self._look(connection) == self._unchanged:
                self._empty(connection)
                return True
        return False

    def _look(self, connection: "psycopg.Connection[tuple[object, ...]]") -> list[object]:
        """All that is in a database, but the rows that tests put there."""
        return [
            connection.execute(SCHEMA).fetchone(),
            *(_rows(connection, table) for table in self._kept),
        ]

    def _empty(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        with connection.transaction():
            tables = connection.execute(
                "SELECT used::text FROM unnest(%s::regclass[]) AS used"
                " WHERE pg_relation_size(used) > 0",
                [self._filled_by_tests],
            ).fetchall()
            if tables:
                names = ", ".join(str(table) for (table,) in tables)
                connection.execute(f"TRUNCATE {names} CASCADE")
            connection.execute(
                "SELECT setval(name, seqstart, false)"
                " FROM unnest(%s::regclass[]) AS name JOIN pg_sequence ON seqrelid = name"
                " WHERE pg_sequence_last_value(name) IS NOT NULL",
                [self._sequences],
            )

    @staticmethod
    def _connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(url, autocommit=True)


def _rows(connection: "psycopg.Connection[tuple[object, ...]]", table: str) -> object:
    row = connection.execute(f"SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {table} AS t")
    return row.fetchone()
