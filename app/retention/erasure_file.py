"""Erasures outside of the database: without them, a backup of an earlier time would bring back what
was erased since.

A file has one JSON object a line, of ids, hashes and times alone, so it may be kept for longer than
any backup. Reading one again changes nothing.
"""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import UUID

import asyncpg
import attrs

from app.errors import MailroomError
from app.jobs.transitions import erasing
from app.retention.criteria import Pool

BATCH = 200
# With one statement: a file may tell of millions, of which no statement takes all.
WRITTEN_AT_ONCE = 5_000
# In this order: who reads a record of an erasure finds its tombstones after it.
TABLES = ("erasures", "tombstones", "zendesk_erasures")
EMPTIED = "emptied"
TOLD = "erased anew after a restore"

# A criterion that stands in clear is of an erasure that has not ended.
READ = {
    "erasures": "SELECT to_jsonb(e) - 'criterion' FROM erasures AS e WHERE ended_at IS NOT NULL",
    "tombstones": "SELECT to_jsonb(t) FROM tombstones AS t",
    "zendesk_erasures": "SELECT to_jsonb(z) FROM zendesk_erasures AS z",
    EMPTIED: """
        SELECT jsonb_build_object('id', id, 'whole', from_email = '' AND COALESCE(subject, '') = '')
        FROM incoming_emails WHERE erased_at IS NOT NULL
    """,
}
WRITE = {
    name: f"""
        INSERT INTO {name} SELECT r.* FROM unnest($1::text[]) AS line
        CROSS JOIN LATERAL jsonb_populate_record(NULL::{name}, line::jsonb) AS r
        ON CONFLICT DO NOTHING
    """  # noqa: S608 - constants
    for name in TABLES
}
# What came back has its id, or was stored anew: then it has its keys.
FIND = """
SELECT email.id, min(stone.erasure::text)::uuid AS erasure
FROM tombstones AS stone JOIN incoming_emails AS email
    ON email.id = stone.email OR email.idempotency_key = stone.key
    OR email.delivery_signature = stone.key
WHERE stone.key = ANY($1::text[])
GROUP BY email.id
"""
NOT_EMPTIED = f"""
SELECT id FROM incoming_emails
WHERE id = ANY($1::uuid[]) AND (erased_at IS NULL OR ($2 AND {erasing.IS_OF_SOMEBODY}))
"""  # noqa: S608 - a constant


class ErasureFileError(MailroomError):
    """The file is none of `mailroom erasures export`."""


@attrs.frozen
class Imported:
    """What a file brought."""

    records: int
    """Lines that were read."""
    emails: int
    """Emails that had come back, and are erased again."""


async def export(pool: Pool) -> AsyncIterator[str]:
    """Lines that tell all erasures that have ended, of one moment."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        for kind, query in READ.items():
            async for row in connection.cursor(query):
                yield json.dumps({"of": kind, "row": json.loads(row[0])})


async def restore(pool: Pool, lines: Iterable[str]) -> Imported:
    """Have known again what a file tells, and erase again what came back.

    Raises:
        ErasureFileError: a line is none of `export`'s; nothing was changed.
    """
    told = _parse(lines)
    async with pool.acquire() as connection, connection.transaction():
        for name in TABLES:
            rows = [json.dumps(one) for one in told[name]]
            try:
                for first in range(0, len(rows), WRITTEN_AT_ONCE):
                    await connection.execute(WRITE[name], rows[first : first + WRITTEN_AT_ONCE])
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                raise ErasureFileError(f"a line of {name} cannot be read: {error}") from error
    keys = [one["key"] for one in told["tombstones"]]
    emails = 0
    for first in range(0, len(keys), BATCH):
        emails += await _erase_again(pool, keys[first : first + BATCH])
    for is_whole in (True, False):
        ids = [one["id"] for one in told[EMPTIED] if one["whole"] is is_whole]
        for first in range(0, len(ids), BATCH):
            emails += await _empty_again(pool, ids[first : first + BATCH], whole=is_whole)
    return Imported(sum(map(len, told.values())), emails)


def _parse(lines: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = {kind: [] for kind in READ}
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            kind, one = found["of"], found["row"]
            told[kind].append({**one, **({"id": UUID(one["id"])} if kind == EMPTIED else {})})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ErasureFileError(
                f"line {number} is none that `mailroom erasures export` writes: give its whole "
                "output"
            ) from error
    return told


async def _erase_again(pool: Pool, keys: list[str]) -> int:
    by_erasure: dict[UUID, list[UUID]] = {}
    for row in await pool.fetch(FIND, keys):
        by_erasure.setdefault(row["erasure"], []).append(row["id"])
    erased = 0
    for erasure_id, ids in by_erasure.items():
        gone = None
        while gone is None:
            await erasing.mark(pool, ids, erasure_id)
            await erasing.settle_writers(pool)
            async with pool.acquire() as connection, connection.transaction():
                gone = await erasing.remove(connection, ids, erasure_id)
        erased += gone.emails
    return erased


async def _empty_again(pool: Pool, ids: list[UUID], *, whole: bool) -> int:
    async with pool.acquire() as connection, connection.transaction():
        back = [row["id"] for row in await connection.fetch(NOT_EMPTIED, ids, whole)]
        return (await erasing.empty(connection, back, told=TOLD, whole=whole)).emails
