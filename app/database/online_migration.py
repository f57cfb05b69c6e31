"""Changes of the schema beside which webhooks go on being stored; how each migration is written.

An ALTER TABLE waits for every transaction that has touched the table, and whoever comes after it
waits for the ALTER. So nothing here waits for such a lock for long, nothing scans or rewrites a
table under it, and what takes long runs under locks that do not stop writers.
"""

from collections.abc import Iterable
from typing import Any

import asyncpg
import attrs
import structlog
from piccolo.apps.migrations.auto.migration_manager import (
    AddColumnClass,
    MigrationManager,
)
from piccolo.constraints import Check, Unique
from piccolo.table import create_table_class

from app.database.engine import DB
from app.database.table_locks import in_turn, told_who_blocks
from app.settings import get_settings

log = structlog.get_logger(__name__)

# An index of a huge archive may take hours; asyncpg wants some number.
LONGEST_BUILD_SECONDS = 7 * 86_400.0

IS_INVALID = "SELECT FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid"
HAS_CONSTRAINT = (
    "SELECT FROM pg_constraint WHERE conrelid = to_regclass('{table}') AND conname = '{name}'"
)
IS_TABLE = "SELECT WHERE to_regclass('{table}') IS NOT NULL"
COLUMN_TYPE = (
    "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('{table}') AND attname = '{name}'"
    " AND atttypid = to_regtype('{type}')"
)


@attrs.frozen
class _Key:
    """A unique constraint of a table that has rows: its index is built first, then attached."""

    table: str
    name: str
    columns: tuple[str, ...]
    nulls_distinct: bool = True

    @property
    def definition(self) -> str:
        columns = ", ".join(f'"{column}"' for column in self.columns)
        return f"{self.table} ({columns})" + ("" if self.nulls_distinct else " NULLS NOT DISTINCT")


class OnlineMigration(MigrationManager):
    """A migration of Mailroom: declared as Piccolo's own are, and run without stopping writers.

    Changes of tables are one short transaction that gives up its wait for a lock in less than a
    second and is tried again. Unique columns and constraints get their index by a concurrent build,
    which is attached then; CHECKs come as `NOT VALID` and are validated afterwards. Where a run was
    killed between two steps, the next one goes on. What PostgreSQL cannot do in this way (a
    column's new type, say) needs several migrations: a new column beside the old one.
    """

    def __init__(self, migration_id: str, description: str) -> None:
        super().__init__(migration_id=migration_id, app_name="mailroom", description=description)
        self._built: dict[str, str] = {}
        self._unique: set[str] = set()
        self._dropped: dict[str, str] = {}
        self._storage: dict[str, dict[str, int]] = {}
        self._locked: set[str] = set()

    def waits_for(self, table: str) -> None:
        """What `add_raw` does needs a lock of this table."""
        self._locked.add(table)

    def set_storage(self, table: str, **parameters: int) -> None:
        """Set storage parameters of a table, such as no lock against writers is needed for; the way
        back resets them to PostgreSQL's own.

        https://www.postgresql.org/docs/current/sql-createtable.html#SQL-CREATETABLE-STORAGE-PARAMETERS
        """
        self._storage[table] = parameters

    def build_index(self, name: str, definition: str, *, unique: bool = False) -> None:
        """Build an index after the changes of tables: `table (columns) ...`, as after ON."""
        self._built[name] = definition
        if unique:
            self._unique.add(name)

    def drop_index(self, name: str, definition: str) -> None:
        """Drop an index; the way back builds it by its definition."""
        self._dropped[name] = definition

    async def run(self, backwards: bool = False) -> None:
        """What Piccolo calls. In a preview it prints the statements."""
        if backwards:
            for table, parameters in self._storage.items():
                await self._alone(f"ALTER TABLE {table} RESET ({', '.join(parameters)})")
            await self._change_indexes(build=self._dropped, drop=self._built)
            await self._change_tables(backwards=True)
            return
        keys = [*self._put_keys_aside()]
        checks = [*self._put_checks_aside()]
        await self._change_tables(backwards=False)
        await self._change_indexes(build=self._built, drop=self._dropped)
        for key in keys:
            await self._attach(key)
        for table, name in checks:
            await self._alone(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
        for table, parameters in self._storage.items():
            given = ", ".join(f"{name} = {value}" for name, value in parameters.items())
            await self._alone(f"ALTER TABLE {table} SET ({given})")

    def _put_keys_aside(self) -> Iterable[_Key]:
        """Take from the new columns of old tables what would be built under their lock."""
        for added in self.add_columns.add_columns:
            meta = added.column._meta
            table, column = added.tablename, meta.db_column_name
            if self._is_new(table):
                continue
            if meta.unique:
                meta.unique = False
                yield _Key(table, f"{table}_{column}_key", (column,))
            if meta.index:
                meta.index = False
                self.build_index(f"{table}_{column}", f'{table} ("{column}")')
        for constrained in [*self.add_constraints.add_constraints]:
            constraint = constrained.constraint
            if isinstance(constraint, Unique) and not self._is_new(constrained.tablename):
                self.add_constraints.add_constraints.remove(constrained)
                columns = tuple(constraint.get_column_names())  # type: ignore[no-untyped-call]
                yield _Key(
                    constrained.tablename,
                    constraint._meta.name,
                    columns,
                    constraint.nulls_distinct,
                )

    def _put_checks_aside(self) -> Iterable[tuple[str, str]]:
        for constrained in self.add_constraints.add_constraints:
            constraint, table = constrained.constraint, constrained.tablename
            if isinstance(constraint, Check) and not self._is_new(table):
                name = constraint._meta.name
                constrained.constraint = _NotValid(constraint.condition, name=name)
                yield table, name

    def _is_new(self, table: str) -> bool:
        return any(added.tablename == table for added in self.add_tables)

    async def _change_tables(self, *, backwards: bool) -> None:
        if self.preview:
            await super().run(backwards)
            return
        if not backwards:
            await self._leave_out_what_is_there()
        await in_turn(self._tables(), lambda: super(OnlineMigration, self).run(backwards))

    async def _leave_out_what_is_there(self) -> None:
        """A run that was killed after the tables' change has left all of it: it is not repeated."""
        columns, constraints = self.add_columns, self.add_constraints
        there = {
            table.tablename
            for table in self.add_tables
            if await DB.run_ddl(IS_TABLE.format(table=table.tablename))
        }
        columns.add_columns = [a for a in columns.add_columns if a.tablename not in there]
        constraints.add_constraints = [
            c for c in constraints.add_constraints if c.tablename not in there
        ]
        self.add_tables = [table for table in self.add_tables if table.tablename not in there]
        added = [a for a in columns.add_columns if not self._is_new(a.tablename)]
        if added and all([await _is_there(a) for a in added]):
            columns.add_columns = [a for a in columns.add_columns if self._is_new(a.tablename)]
        for constrained in [*constraints.add_constraints]:
            table, name = constrained.tablename, constrained.constraint._meta.name
            if await DB.run_ddl(HAS_CONSTRAINT.format(table=table, name=name)):
                constraints.add_constraints.remove(constrained)

    def _tables(self) -> list[str]:
        """The tables of which a lock is needed."""
        changes: tuple[Any, ...] = (
            *(*self.add_tables, *self.drop_tables, *self.add_columns.add_columns),
            *(*self.drop_columns.drop_columns, *self.alter_columns.alter_columns),
            *(*self.add_constraints.add_constraints, *self.drop_constraints.drop_constraints),
            *self.rename_columns.rename_columns,
        )
        return sorted({*self._locked, *(change.tablename for change in changes)})

    async def _change_indexes(self, *, build: dict[str, str], drop: dict[str, str]) -> None:
        for name, definition in build.items():
            kind = "UNIQUE INDEX" if name in self._unique else "INDEX"
            await self._build(name, definition, kind)
        for name in drop:
            await self._drop(name)

    async def _build(self, name: str, definition: str, kind: str = "INDEX") -> None:
        """Build an index without blocking writes.

        A build that was interrupted leaves an INVALID index under its name, which IF NOT EXISTS
        would accept: it is dropped first.
        """
        while True:
            if not self.preview and await DB.run_ddl(IS_INVALID.format(name=name)):
                await self._drop(name)
            build = f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {definition}"
            try:
                return await self._alone(build)
            except asyncpg.DeadlockDetectedError:
                log.info("migration_repeats", index=name)
            except asyncpg.PostgresError:
                # One that is unique would go on refusing rows.
                await self._drop(name)
                raise

    async def _drop(self, name: str) -> None:
        while True:
            try:
                return await self._alone(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            except asyncpg.DeadlockDetectedError:
                # With a build whose process was killed and which PostgreSQL has not ended.
                log.info("migration_repeats", index=name)

    async def _attach(self, key: _Key) -> None:
        if not self.preview and await DB.run_ddl(
            HAS_CONSTRAINT.format(table=key.table, name=key.name)
        ):
            return
        await self._build(key.name, key.definition, "UNIQUE INDEX")
        attach = f"ALTER TABLE {key.table} ADD CONSTRAINT {key.name} UNIQUE USING INDEX {key.name}"
        if self.preview:
            print("\n", f"{attach};")
        else:
            await in_turn([key.table], lambda: DB.run_ddl(attach))

    async def _alone(self, statement: str) -> None:
        """Run outside a transaction what takes long and does not stop writers."""
        if self.preview:
            print("\n", f"{statement};")
            return
        connection = await DB.get_new_connection()
        try:
            if get_settings().behind_pgbouncer:
                # There is no session to set anything for, and its number is not the server's.
                await connection.execute(statement, timeout=LONGEST_BUILD_SECONDS)
                return
            await connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            async with told_who_blocks(connection.get_server_pid()):
                await connection.execute(statement, timeout=LONGEST_BUILD_SECONDS)
        finally:
            await connection.close()


class _NotValid(Check):
    """A CHECK that counts for new rows and has not looked at the old ones."""

    @property
    def ddl(self) -> str:
        return f"{super().ddl} NOT VALID"


async def _is_there(added: AddColumnClass) -> bool:
    name = added.column._meta.name
    # Without a table, a column does not know its type.
    table = create_table_class(
        added.table_class_name,
        class_kwargs={"tablename": added.tablename},
        class_members={name: added.column},
    )
    column = table._meta.get_column_by_name(name)
    found = await DB.run_ddl(
        COLUMN_TYPE.format(
            table=added.tablename,
            name=column._meta.db_column_name,
            type=column.column_type.partition("(")[0],
        )
    )
    return bool(found)
