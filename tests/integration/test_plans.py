"""How PostgreSQL finds the rows of every hot statement, whatever its statistics are of: an empty
table, a full one, one of a million emails, and one that was full and is drained by now.

A million is told to the planner instead of stored: it reckons with the rows that the catalogue
says there are on a page.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import attrs
import pytest

from app.api.search import Search
from app.api.search_text import read_search
from app.attachments import expiry
from app.attachments.not_kept import find_page
from app.audit.acts import Act
from app.audit.finding import AuditSearch
from app.desk.completions import RESULTS
from app.jobs import progress
from app.jobs.transitions import claiming, dispatching, ending, keeping
from app.models.audit_entry import Door, Result
from app.retention import sweeps
from app.sync import cancelling, claims, transitions
from app.sync.claims import Source
from app.sync.counts import list_undelivered

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LEASE = timedelta(seconds=60)
IDS = [UUID(int=n) for n in range(1, 101)]
TOKENS = [datetime.now(UTC)] * len(IDS)
NOW = datetime.now(UTC)


def each(value: Any) -> list[Any]:
    return [value] * len(IDS)


BY_IDS: dict[str, tuple[str, list[Any]]] = {
    "CLAIM": (claiming.CLAIM, [IDS, IDS, LEASE, "w", False, True, 10_000_000, True]),
    "GIVE_BACK": (claiming.GIVE_BACK, [IDS]),
    "COMPLETE": (ending.COMPLETE, [IDS, TOKENS, each("{}"), each("text"), True]),
    "RETRY_LATER": (ending.RETRY_LATER, [IDS, TOKENS, each("x"), each(LEASE)]),
    "FAIL": (ending.FAIL, [IDS, TOKENS, each("x"), True]),
    "HAND_BACK": (ending.HAND_BACK, [IDS, TOKENS, each("x")]),
    "POSTPONE_SUSPECT": (claiming.POSTPONE_SUSPECT, [IDS[0], LEASE]),
    "UNQUEUE": (dispatching.UNQUEUE, [IDS, TOKENS, each(True)]),
    "END_WAIT": (dispatching.END_WAIT, [IDS]),
    "EXTEND_LEASES": (keeping.EXTEND_LEASES, [IDS, TOKENS, LEASE]),
    "TELL": (progress.TELL, [IDS, TOKENS, each("x")]),
}
STATES = {
    "QUEUE": (dispatching.QUEUE, [200, 1_000, 1, None, None, LEASE, 100]),
    "QUEUE since": (dispatching.QUEUE, [200, 1_000, 1, NOW, NOW, LEASE, 100]),
    "HAS_NO_ROOM": (dispatching.HAS_NO_ROOM, [800, None]),
    "HAS_NO_ROOM since": (dispatching.HAS_NO_ROOM, [800, NOW]),
    "RESCUE_EXPIRED": (keeping.RESCUE_EXPIRED, [500, None]),
    "RESCUE_EXPIRED since": (keeping.RESCUE_EXPIRED, [500, NOW]),
    "RESCUE_UNHEARD": (keeping.RESCUE_UNHEARD, [500, None, LEASE, None, True]),
    "RESCUE_UNHEARD since": (keeping.RESCUE_UNHEARD, [500, NOW, LEASE, NOW, False]),
    "BEGINNINGS": (keeping.BEGINNINGS, [None, None]),
    "BEGINNINGS since": (keeping.BEGINNINGS, [NOW, NOW]),
}
OF_STATES = ("status_received", "with_message", "without_message")
CLAIMS: list[Any] = [50, LEASE, "receiver", None, 1_000, 1_000]
DELIVERY = {
    "CLAIM": (claims.CLAIM[Source.EMAILS], CLAIMS),
    "PROBE": (claims.PROBE[Source.EMAILS], CLAIMS),
    "CLAIM_IN_ORDER": (claims.CLAIM_IN_ORDER, [*CLAIMS, LEASE]),
    "PROBE_IN_ORDER": (claims.PROBE_IN_ORDER, [*CLAIMS, LEASE]),
    "LET_NEXT_GO": (transitions.LET_NEXT_GO, [IDS]),
    "EXTEND": (transitions.EXTEND[Source.EMAILS], [IDS, IDS, LEASE]),
    "CANCEL": (cancelling.CANCEL, [IDS, "erika"]),
    "RECORD": (
        transitions.RECORD[Source.EMAILS],
        [
            *(IDS, IDS, each(1), each("pending"), each("x"), each(LEASE)),
            *(each(True), each("x"), "worker"),
        ],
    ),
}
OF_DELIVERY = ("deliver", "undelivered", "ticket")

FILL = """
INSERT INTO incoming_emails (from_email, processing_status, received_at, queued_at, started_at,
    sync_status, sync_next_attempt_at, zendesk_ticket_id)
SELECT 'erika@example.com', state, now() - n * interval '1 minute',
    CASE WHEN n % 2 = 0 THEN now() END, now(),
    CASE WHEN state = 'completed' THEN 'pending' ELSE 'not_applicable' END,
    now() - n * interval '1 second', (n / 3)::text
FROM unnest(ARRAY['received', 'queued', 'processing', 'completed']) AS state,
    generate_series(1, $1) AS n
"""
FILL_FILES = """
INSERT INTO email_attachments (email, position, filename, state, reason, ended_at)
SELECT id, place, 'invoice ' || place || '-' || row_number() OVER () || '.pdf',
    CASE WHEN hashtext(zendesk_ticket_id || place) % 10 = 0 THEN 'failed' ELSE 'kept' END, 'gone',
    received_at
FROM incoming_emails, generate_series(0, 1) AS place
"""
FILL_WORDS = """
INSERT INTO search_entries (email, received_at, words)
SELECT id, received_at, setweight(to_tsvector('simple', 'invoice ' || zendesk_ticket_id), 'A')
    || array_to_tsvector(ARRAY[
        CASE WHEN hashtext(zendesk_ticket_id) % 50 = 0 THEN 'result=tier=gold'
        ELSE 'at=example.com' END])
FROM incoming_emails
"""
SEARCHED = ("incoming_emails", "email_attachments", "search_entries")
SEARCHES = (
    "",
    "invoice",
    "nobodywroteso",
    "invoice nobodywroteso",
    "17",
    "from:example.com",
    "from:erika@example.com",
    "ticket:17",
    "status:failed",
    "status:completed invoice",
    "error:timeout",
    "received:2026-01-01..2026-01-02",
    "received:2020-01-01.. invoice",
    "ended:2026-01-01..2026-01-02",
    "has:attachment",
    "handler-result.tier:gold",
    "handler-result.tier:gold invoice from:example.com",
)
# What one email after the other does that goes through.
GO_THROUGH = """
INSERT INTO incoming_emails (from_email, processing_status, received_at, zendesk_ticket_id)
SELECT 'erika@example.com', 'received', now() - n * interval '1 minute', (n / 3)::text
FROM generate_series(1, 20000) AS n;
UPDATE incoming_emails SET processing_status = 'queued', queued_at = clock_timestamp();
UPDATE incoming_emails SET processing_status = 'processing';
UPDATE incoming_emails SET processing_status = 'completed';
"""
SAY_A_MILLION = """
UPDATE pg_class SET reltuples = 1000000
WHERE oid = 'incoming_emails'::regclass
    OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'incoming_emails'::regclass)
"""


async def with_all_statistics(
    connection: "asyncpg.Connection[asyncpg.Record]", check: Callable[[str], Awaitable[None]]
) -> None:
    """Have something checked with those of each table."""
    await connection.execute("ANALYZE incoming_emails")
    await connection.execute(FILL, 4_000)
    await check("empty")
    await connection.execute("ANALYZE incoming_emails")
    await check("full")
    await connection.execute(SAY_A_MILLION)
    await check("a million")
    await connection.execute(
        "UPDATE incoming_emails SET processing_status = 'completed', sync_status = 'synced'"
    )
    await check("drained, with the statistics of a million")
    await connection.execute("ANALYZE incoming_emails")
    await check("drained")
    await connection.execute(SAY_A_MILLION)
    await check("a million, drained")


@pytest.mark.parametrize("kind", ["force_custom_plan", "force_generic_plan"])
async def test_every_hot_statement_finds_its_rows_by_the_index_that_was_made_for_it(
    pool: Pool, kind: str
) -> None:
    async with pool.acquire() as connection:
        await connection.execute(f"SET plan_cache_mode = {kind}")

        async def check(statistics: str) -> None:
            await check_hot_statements(connection, statistics)

        await with_all_statistics(connection, check)


@pytest.mark.parametrize("kind", ["force_custom_plan", "force_generic_plan"])
async def test_no_hot_statement_walks_over_what_was_queued_beside_a_transaction_left_open(
    pool: Pool, kind: str
) -> None:
    """The index of what is queued has many pages and no rows then, and looks dear."""
    async with pool.acquire() as other, pool.acquire() as connection:
        await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await other.execute("SELECT FROM incoming_emails LIMIT 1")
        await connection.execute(GO_THROUGH)
        await connection.execute("VACUUM ANALYZE incoming_emails")
        await connection.execute(f"SET plan_cache_mode = {kind}")
        await check_hot_statements(connection, "dead entries")
        await other.execute("ROLLBACK")


async def check_hot_statements(
    connection: "asyncpg.Connection[asyncpg.Record]", statistics: str
) -> None:
    for name, (statement, arguments) in (BY_IDS | STATES | DELIVERY).items():
        rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        told = f"{name}, statistics: {statistics}\n{plan}"
        assert "Seq Scan on incoming_emails" not in plan, told
        assert "incoming_emails_pkey" in plan or "UPDATE" not in statement, told
        allowed = () if name in BY_IDS else OF_STATES
        allowed = OF_DELIVERY if name in DELIVERY else allowed
        if name == "RESCUE_UNHEARD since":
            # All that came since then, of whichever state, where that is next to nothing.
            allowed = (*allowed, "received")
        lines = plan.splitlines()
        others = [
            line.partition("ix_incoming_emails_")[2]
            for line in lines
            if "ix_incoming_emails_" in line
        ]
        assert all(other.startswith(allowed) for other in others if allowed), told
        assert allowed or not others, told
        # By the index on state and time, that is.
        assert not any("Index Cond" in line and "'queued'" in line for line in lines), told


async def test_retention_goes_by_the_end_of_an_email(pool: Pool) -> None:
    async with pool.acquire() as connection:

        async def check(statistics: str) -> None:
            for statements in (sweeps.WHOLE, sweeps.BODIES):
                for statement, arguments, index in (
                    (statements.page, ("completed", NOW, IDS[0], NOW, 2_000), "ix_{}_finished"),
                    (statements.lock, (IDS, "completed", NOW), "{}_pkey"),
                ):
                    rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
                    plan = "\n".join(row[0] for row in rows)
                    told = f"statistics: {statistics}\n{plan}"
                    assert "Seq Scan on incoming_emails" not in plan, told
                    assert index.format("incoming_emails") in plan, told

        await with_all_statistics(connection, check)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes_of(inner)


@pytest.mark.parametrize("result", ["null", "'{}'", "to_json(repeat('long ', 4000))"])
async def test_what_completes_a_search_is_read_of_the_newest_emails_alone(
    pool: Pool, result: str
) -> None:
    async with pool.acquire() as connection:
        await connection.execute(FILL, 4_000)
        await connection.execute(f"UPDATE incoming_emails SET extracted_data = {result}")
        await connection.execute("VACUUM ANALYZE incoming_emails")

        async def check(statistics: str) -> None:
            explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {RESULTS}")
            (scan,) = (
                node
                for node in nodes_of(json.loads(explained)[0]["Plan"])
                if node.get("Relation Name") == "incoming_emails"
            )
            read = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
            assert read <= 200, f"statistics: {statistics}\n{explained}"

        await check("full")
        await connection.execute(SAY_A_MILLION)
        await check("a million")


async def test_retention_goes_by_the_end_of_a_file(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute(FILL, 4_000)
        await connection.execute(
            "INSERT INTO email_attachments (email, state, ended_at) SELECT id, 'kept',"
            " now() - interval '1 hour' * row_number() OVER () FROM incoming_emails"
        )
        await connection.execute("ANALYZE incoming_emails, email_attachments")
        await connection.execute(SAY_A_MILLION)
        await connection.execute(SAY_A_MILLION.replace("incoming_emails", "email_attachments"))
        for statement, arguments, index in (
            (expiry.PAGE, (NOW - timedelta(days=1_000), IDS[0], NOW, 2_000), "state"),
            (expiry.EXPIRE, (IDS, NOW), "pkey"),
        ):
            rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
            plan = "\n".join(row[0] for row in rows)
            assert "Seq Scan" not in plan, plan
            assert "incoming_emails_pkey" in plan, plan
            assert f"email_attachments_{index}" in plan, plan


async def test_the_audit_log_is_searched_by_its_indexes(pool: Pool) -> None:
    """In their order, so that the newest page costs a page, whatever the log's length. Words have
    none: the page gives up on them after some seconds."""
    searches = {
        AuditSearch(): "at",
        AuditSearch(since=NOW - timedelta(days=1), until=NOW): "at",
        AuditSearch(result=Result.REFUSED): "result",
        AuditSearch(door=Door.COMMAND): "door",
        AuditSearch(actor="user 7"): "actor",
        AuditSearch(act=Act.EMAIL_ERASE): "act",
        AuditSearch(on="object 7", result=Result.DONE): "object",
        AuditSearch(on="object 7", since=NOW - timedelta(days=1)): "object",
    }
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO audit_entries (id, at, actor_kind, actor, door, act, object, result)"
            " SELECT gen_random_uuid(), now() - n * interval '1 minute', 'user', 'user ' || n % 50,"
            " CASE WHEN n % 97 = 0 THEN 'command' ELSE 'page' END,"
            " CASE WHEN n % 100 = 0 THEN 'email.erase' ELSE 'email.retry' END, 'object ' || n,"
            " CASE WHEN n % 89 = 0 THEN 'refused' ELSE 'done' END"
            " FROM generate_series(1, 20000) AS n"
        )
        await connection.execute("ANALYZE audit_entries")
        for after in (None, (NOW, IDS[0])):
            for search, index in searches.items():
                query, arguments = search.query(limit=51, after=after)
                rows = await connection.fetch(f"EXPLAIN {query}", *arguments)
                plan = "\n".join(row[0] for row in rows)
                assert f"Index Scan Backward using ix_audit_entries_{index} " in plan, plan
                assert "Sort" not in plan, plan


class Explained:
    """Tells how PostgreSQL would find what is asked for, and finds nothing."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection
        self.plan = ""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        rows = await self.connection.fetch(f"EXPLAIN {query}", *args)
        self.plan = "\n".join(row[0] for row in rows)
        return []


async def test_searches_of_deliveries_and_files_walk_over_no_table(pool: Pool) -> None:
    """Whatever is asked for, and wherever the page begins; and each finds what it alone knows by
    the index that was made for it."""
    deliveries = {
        **{f"sync:{state} {text}": "" for state in ("failed", "pending") for text in SEARCHES},
        "sync:failed": "ix_incoming_emails_unsynced",
        "sync:failed file:failed": "",
        "sync:pending": "ix_incoming_emails_unsynced",
        'sync:failed sync-error:"answered 17"': "ix_incoming_emails_sync_error",
        "sync:failed sync-error:timeo* invoice": "",
    }
    files = {
        **{f"file:failed {text}": "" for text in SEARCHES},
        "file:failed": "ix_email_attachments_state",
        "file:flagged": "ix_email_attachments_state",
        "file:failed sync:failed": "",
        'file:failed file-name:"invoice 0 17"': "ix_email_attachments_names",
        "file:failed file-name:nosu* invoice": "",
    }
    async with pool.acquire() as connection:
        await connection.execute(FILL, 4_000)
        # As wide as a row of an email is whose bodies lie elsewhere.
        await connection.execute(
            "UPDATE incoming_emails SET cleaned_body = (SELECT string_agg(md5(zendesk_ticket_id ||"
            " n), '') FROM generate_series(1, 30) AS n)"
        )
        await connection.execute(
            "UPDATE incoming_emails SET completed_at = received_at, sync_error = 'the receiver"
            " answered ' || zendesk_ticket_id, sync_status = CASE WHEN hashtext(zendesk_ticket_id)"
            " % 10 = 0 THEN 'failed' ELSE 'pending' END WHERE processing_status = 'completed'"
        )
        await connection.execute(FILL_FILES)
        await connection.execute(FILL_WORDS)
        await connection.execute(f"ANALYZE {', '.join(SEARCHED)}")
        explained: Any = Explained(connection)
        for told in ("full", "a million"):
            for after in (None, (NOW - timedelta(days=1), IDS[0])):
                for text, index in deliveries.items():
                    parameters: list[object] = []
                    condition = read_search(text).where(parameters)
                    await list_undelivered(explained, condition, parameters, limit=51, after=after)
                    check_searched(explained.plan, text, told, index)
                for text, index in files.items():
                    search, parameters = read_search(text), []
                    of_emails = attrs.evolve(search, file_state=None, file_words=())
                    condition = of_emails.where(parameters)
                    await find_page(
                        explained,
                        search.of_file(parameters),
                        None if of_emails == Search() else condition,
                        parameters,
                        limit=51,
                        after=after,
                    )
                    check_searched(explained.plan, text, told, index)
            for table in SEARCHED:
                await connection.execute(SAY_A_MILLION.replace("incoming_emails", table))


def check_searched(plan: str, text: str, statistics: str, index: str) -> None:
    told = f"{text}, statistics: {statistics}\n{plan}"
    assert not any(f"Seq Scan on {table}" in plan for table in SEARCHED), told
    assert index in plan, told
