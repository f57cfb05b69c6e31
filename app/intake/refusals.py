"""Refused webhooks: what is kept of each, and how they are found, listed and discarded."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
import attrs

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import Database, in_transaction, write
from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.models.audit_entry import Result
from app.models.fit import containing, read_object
from app.models.quarantined_webhook import RefusalReason

# What decides about a webhook, and what Zendesk knows it by.
KEPT_HEADERS = (
    "content-type",
    "content-encoding",
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    INVOCATION_HEADER,
    "x-zendesk-webhook-id",
    "x-zendesk-account-id",
    "user-agent",
)

PAGE_ROWS = 100
# A page is held in memory, and admitted with one INSERT that has to keep the Intake's deadline.
PAGE_BYTES = 8 * 1024 * 1024
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
# Zendesk's own headers have some 200 characters, and what a sender is told some hundred.
LONGEST_HEADER = 512
LONGEST_DETAIL = 10_000

# Of those that are wanted: by the reason, words, ids, and a moment before which they came. All are
# few by the bounds of the quarantine.
_IS_WANTED = """(
    ($1::text IS NULL OR reason = $1)
    AND concat_ws(' ', reason, detail, remote_address) ILIKE ALL ($2::text[])
    AND ($3::uuid[] IS NULL OR id = ANY ($3))
    AND ($4::timestamptz IS NULL OR received_at < $4)
)"""
SELECT_PAGE = f"""
SELECT id, received_at, reason, detail, remote_address, headers, body, is_signed
FROM (
    SELECT *, sum(size) OVER (ORDER BY received_at, id) - size AS bytes_before
    FROM (
        SELECT * FROM quarantined_webhooks
        WHERE (received_at, id) > ($5, $6) AND {_IS_WANTED}
        ORDER BY received_at, id
        LIMIT $7
    ) AS next
) AS counted
WHERE bytes_before < $8
ORDER BY received_at, id
"""  # noqa: S608 - of constants
SELECT_SUMMARIES = """
SELECT id, received_at, reason, detail, remote_address, size, is_signed
FROM quarantined_webhooks
WHERE (received_at, id) > ($1, $2) AND ($3::text IS NULL OR reason = $3)
ORDER BY received_at, id
LIMIT $4
"""
# It sorts all summaries, which the bounds of the quarantine keep few.
SELECT_SIGNED_FIRST = f"""
SELECT id, received_at, reason, detail, remote_address, size, is_signed
FROM quarantined_webhooks
WHERE (NOT is_signed, received_at, id) > ($5, $6, $7) AND {_IS_WANTED}
ORDER BY NOT is_signed, received_at, id
LIMIT $8
"""  # noqa: S608 - of constants
COUNT = f"""
SELECT reason, count(*) AS webhooks, count(*) FILTER (WHERE body IS NULL) AS without_body
FROM quarantined_webhooks WHERE {_IS_WANTED} GROUP BY reason
"""  # noqa: S608 - of constants
SELECT_IDS = f"SELECT id FROM quarantined_webhooks WHERE {_IS_WANTED} ORDER BY id LIMIT $5"  # noqa: S608
DISCARD = "DELETE FROM quarantined_webhooks WHERE id = ANY($1::uuid[]) RETURNING id"
SELECT_ONE = """
SELECT id, received_at, reason, detail, remote_address, headers, body, is_signed
FROM quarantined_webhooks WHERE id = $1
"""


def _cut_detail(detail: str) -> str:
    return detail[:LONGEST_DETAIL]


def _cut_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value[:LONGEST_HEADER] for name, value in headers.items()}


@attrs.frozen(kw_only=True)
class Wanted:
    """Which refused webhooks are meant: those of which all of this is so."""

    reason: RefusalReason | None = None
    words: Sequence[str] = ()
    """Each stands in what its sender was told, in their address or in the reason."""
    ids: Sequence[UUID] | None = None
    until: datetime | None = None
    """They came before that."""

    @property
    def arguments(self) -> tuple[object, ...]:
        """What the statements need."""
        return self.reason, list(map(containing, self.words)), self.ids, self.until


@attrs.frozen
class Count:
    """How many there are of one reason."""

    webhooks: int
    without_body: int


EVERYTHING = Wanted()


@attrs.frozen
class Summary:
    """What a list tells of a refused webhook."""

    id: UUID
    received_at: datetime
    reason: RefusalReason
    detail: str
    remote_address: str
    size: int
    is_signed: bool


@attrs.frozen
class Refusal:
    """A refused webhook."""

    id: UUID = attrs.field(kw_only=True)
    received_at: datetime = attrs.field(factory=lambda: datetime.now(UTC), kw_only=True)
    reason: RefusalReason
    detail: str = attrs.field(converter=_cut_detail)
    remote_address: str
    headers: Mapping[str, str] = attrs.field(converter=_cut_headers)
    body: bytes | None
    """None where it was too large to be read."""
    is_signed: bool = False
    """Its signature was right when it came."""

    @property
    def size(self) -> int:
        return len(self.body or b"")

    @property
    def kept_bytes(self) -> int:
        """What is stored of it, and what the bounds are about."""
        return self.size + len(json.dumps(self.headers)) + len(self.detail.encode())


def id_of_call(invocation_id: str, body: bytes) -> UUID:
    """Of a webhook that is kept once, however often Zendesk repeats it or tells of it."""
    return uuid5(NAMESPACE_URL, f"zendesk invocation {invocation_id} {sha256(body).hexdigest()}")


async def find_refusal(pool: "asyncpg.Pool[asyncpg.Record]", refusal_id: UUID) -> Refusal | None:
    """A refused webhook by its id."""
    record = await pool.fetchrow(SELECT_ONE, refusal_id)
    return _to_refusal(record) if record else None


async def refusals(
    pool: "asyncpg.Pool[asyncpg.Record]", wanted: Wanted = EVERYTHING
) -> AsyncIterator[list[Refusal]]:
    """All that are wanted, page by page, the oldest first. Those read may be discarded."""
    after = BEFORE_ALL
    while page := [
        _to_refusal(record)
        for record in await pool.fetch(
            SELECT_PAGE, *wanted.arguments, *after, PAGE_ROWS, PAGE_BYTES
        )
    ]:
        yield page
        after = (page[-1].received_at, page[-1].id)


async def summaries(
    pool: "asyncpg.Pool[asyncpg.Record]",
    *,
    reason: RefusalReason | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> list[Summary]:
    """Refused webhooks after that one, the oldest first, without their bodies."""
    records = await pool.fetch(SELECT_SUMMARIES, *(after or BEFORE_ALL), reason, limit)
    return [_to_summary(record) for record in records]


async def summaries_signed_first(
    pool: "asyncpg.Pool[asyncpg.Record]",
    wanted: Wanted = EVERYTHING,
    *,
    limit: int,
    after: tuple[bool, datetime, UUID] | None = None,
) -> list[Summary]:
    """Refused webhooks after that one (signed or not, its time, its id): those that Zendesk signed
    first, then the oldest, so that no number of strangers hides them. Without their bodies."""
    is_signed, *rest = after or (True, *BEFORE_ALL)
    records = await pool.fetch(SELECT_SIGNED_FIRST, *wanted.arguments, not is_signed, *rest, limit)
    return [_to_summary(record) for record in records]


async def count_wanted(
    pool: "asyncpg.Pool[asyncpg.Record]", wanted: Wanted
) -> dict[RefusalReason, Count]:
    """How many there are."""
    rows = await pool.fetch(COUNT, *wanted.arguments)
    return {
        RefusalReason(row["reason"]): Count(row["webhooks"], row["without_body"]) for row in rows
    }


async def find_ids(
    pool: "asyncpg.Pool[asyncpg.Record]", wanted: Wanted, *, limit: int
) -> list[UUID]:
    """Some of those that are wanted."""
    return [row["id"] for row in await pool.fetch(SELECT_IDS, *wanted.arguments, limit)]


async def discard(
    database: Database,
    ids: Sequence[UUID],
    *,
    actor: Actor | None = None,
    act: Act = Act.QUARANTINE_DISCARD,
) -> None:
    """Delete refused webhooks for good.

    Args:
        actor: who does it, for the audit log; None: no person or program.
        act: what they do; what was admitted leaves the quarantine, too.
    """
    async with in_transaction(database) as connection:
        gone = {row["id"] for row in await connection.fetch(DISCARD, ids)}
        if actor is None:
            return
        # What was admitted is, whoever took it out of the quarantine meanwhile.
        done = [one for one in ids if one in gone or act is not Act.QUARANTINE_DISCARD]
        left = [one for one in ids if one not in done]
        for some, result in ((done, Result.DONE), (left, Result.NOTHING)):
            if some:
                await write(connection, actor, act, some, result=result)


async def count_dropped(pool: "asyncpg.Pool[asyncpg.Record]") -> int:
    """How many refused webhooks were not kept so far, because the quarantine was full."""
    dropped: int = await pool.fetchval(
        "SELECT coalesce(sum(dropped), 0)::int FROM quarantine_drops"
    )
    return dropped


def _to_summary(record: asyncpg.Record) -> Summary:
    return Summary(**{**record, "reason": RefusalReason(record["reason"])})


def _to_refusal(record: asyncpg.Record) -> Refusal:
    return Refusal(
        id=record["id"],
        received_at=record["received_at"],
        reason=RefusalReason(record["reason"]),
        detail=record["detail"],
        remote_address=record["remote_address"],
        headers={
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in read_object(record["headers"]).items()
        },
        body=record["body"],
        is_signed=record["is_signed"],
    )
