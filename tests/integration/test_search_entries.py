"""The index of words: what is found by it, when, and that it goes with what it is of."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from app.api import email_pages
from app.api.email_pages import find_page
from app.api.emails import count_matching
from app.api.search import FAILURE, Cursor
from app.api.search_text import read_search
from app.jobs.transitions import operators
from app.retention import erasure
from app.search import entries

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NOW = datetime.now(UTC)
SECOND = timedelta(seconds=1)


async def add(pool: Pool, **columns: Any) -> UUID:
    """Store an email."""
    values = {
        "from_email": "erika@example.com",
        "zendesk_ticket_id": "35436",
        "subject": "Where is my Päckchen?",
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    email_id: UUID = await pool.fetchval(
        f"INSERT INTO incoming_emails ({', '.join(values)}) VALUES ({places}) RETURNING id",
        *values.values(),
    )
    return email_id


async def found(pool: Pool, text: str, *, limit: int = 50) -> list[UUID]:
    """The ids of the emails that a text finds."""
    page = await find_page(pool, read_search(text), limit=limit)
    return [row["id"] for row in page.rows]


FINDS = (
    "päckchen",
    "PÄCKCHEN",
    "packchen",
    "päck*",
    '"is my"',
    '"my päck*"',
    "35436",
    "354*",
    "erika",
    "example.com",
    "erika@example.com",
    "mustermann",
    "subject:where",
    "where - päckchen ?",
    "from:example.com",
    "from:ERIKA@example.com",
    "has:attachment",
    "handler-result.customer.tier:gold",
    "handler-result.parts.1:b",
    "handler-result.order:1.50",
    "handler-result.is_vip:true",
    'handler-result.quoted:"it\'s a \\"',
    "error:timeout",
    "error:readtimeout",
    'error:"answered 503"',
    'error:"ReadTimeout: the CRM"',
    'failure:"httpx.ReadTimeout: the CRM answered 503"',
    "status:failed where päckchen from:example.com error:503 has:attachment",
)
MISSES = (
    "päck",
    "354",
    '"my* päck"',
    "äckchen",
    '"my is"',
    "subject:erika",
    "subject:35436",
    "from:example.co",
    "from:org",
    "error:where",
    "503",
    "handler-result.tier:gold",
    "handler-result.order:1.5",
    "status:completed error:timeout",
    "status:failed error:429",
    'failure:"httpx.ReadTimeout: the CRM answered 50"',
    "päckchen received:2001-01-01",
)


async def test_an_email_is_found_by_its_words_and_by_nothing_else(pool: Pool) -> None:
    email_id = await add(
        pool,
        from_name="Erika Mustermann",
        attachment_urls='[{"url": "https://example.com/a.pdf"}]',
        processing_status="failed",
        completed_at=NOW,
        processing_error="httpx.ReadTimeout: the CRM answered 503",
        extracted_data=(
            '{"customer": {"tier": "gold"}, "parts": ["a", "b"], "order": 1.50, "is_vip": true,'
            ' "quoted": "it\'s a \\\\"}'
        ),
    )
    await add(pool, subject="Another", zendesk_ticket_id="1", from_email="max@example.org")
    for text in FINDS:
        assert await found(pool, text) == [email_id], text
    for text in MISSES:
        assert await found(pool, text) == [], text
    assert await count_matching(pool, read_search("päckchen")) == 1


# 115 characters.
LONG = "httpx.ReadTimeout: " + "the CRM answers no more " * 4
LONG_ERRORS = [
    f"{LONG}{end}" for end in ("a gateway", "by gateway", "has gone", "#", "ab: cd", "abcde")
]
BLANK_ERRORS = ["the CRM answered\r\nno more", "\tthe CRM", "the\rCRM", "\xa0the\u3000CRM\x1f"]


@pytest.mark.parametrize("error", LONG_ERRORS + BLANK_ERRORS)
async def test_emails_that_failed_alike_are_found_by_their_group_of_the_overview(
    pool: Pool, error: str
) -> None:
    email_id = await add(pool, processing_status="failed", completed_at=NOW, processing_error=error)
    failure = await pool.fetchval(f"SELECT {FAILURE} FROM incoming_emails")
    assert not {"\r", "\t"}.intersection(failure)
    assert await found(pool, f'status:failed failure:"{failure}"') == [email_id]


async def test_what_changes_is_found_as_it_is_now(pool: Pool) -> None:
    email_id = await add(pool)
    assert await found(pool, "handler-result.language:de") == []
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'failed', completed_at = now(),"
        " processing_error = 'the CRM answered 503', extracted_data = '{\"language\": \"de\"}'"
    )
    assert await found(pool, "handler-result.language:de") == [email_id]
    assert await found(pool, "error:503") == [email_id]
    await operators.retry(pool, email_id, by="olga")
    assert await found(pool, "error:503") == []
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'completed', completed_at = now()"
    )
    assert await found(pool, "error:503") == []
    assert await found(pool, "where") == [email_id]


async def test_what_was_there_before_the_index_is_indexed_bit_by_bit(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "BATCH", 3)
    ids = [
        # Many of one moment are several batches, too.
        await add(pool, created_at=NOW - timedelta(days=max(0, number - 4)), subject="Old")
        for number in range(8)
    ]
    counts = [len(await found(pool, "old"))]
    async with pool.acquire() as connection:
        is_over = False
        while not is_over:
            is_over = (await entries.index_batch(connection, older=True)).older_than is None
            counts.append(len(await found(pool, "old")))
    assert counts == [3, 6, 8]
    assert set(await found(pool, "old")) == set(ids)


async def test_the_chore_waits_for_an_email_to_end_and_a_search_does_not(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def indexed(**how: bool) -> set[UUID]:
        async with pool.acquire() as connection:
            await entries.index_batch(connection, **how)
        return {row["email"] for row in await pool.fetch("SELECT email FROM search_entries")}

    assert await indexed(waits=True) == set()
    new_id = await add(pool)
    ended_id = await add(pool, processing_status="completed", completed_at=datetime.now(UTC))
    assert await indexed(waits=True) == {ended_id}
    assert await indexed() == {new_id, ended_id}
    slow_id = await add(pool)
    assert await indexed(waits=True) == {new_id, ended_id}
    monkeypatch.setattr(entries, "ENDS_WITHIN", timedelta())
    assert await indexed(waits=True) == {new_id, ended_id, slow_id}


async def test_a_transaction_that_stays_open_holds_up_no_entries(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "ENDS_WITHIN", timedelta())
    async with pool.acquire() as connection, pool.acquire() as late:
        await entries.index_batch(connection, waits=True)
        async with late.transaction():
            late_id = await late.fetchval(
                "INSERT INTO incoming_emails (from_email) VALUES ('e@x.example') RETURNING id"
            )
            slow_id = await add(pool)
            await entries.index_batch(connection, waits=True)
            rows = await pool.fetch("SELECT email FROM search_entries")
            assert [row["email"] for row in rows] == [slow_id]
        await entries.index_batch(connection, waits=True)
    rows = await pool.fetch("SELECT email FROM search_entries")
    assert {row["email"] for row in rows} == {slow_id, late_id}


async def test_a_result_that_is_long_is_not_read(pool: Pool) -> None:
    long = json.dumps({"language": "de", "text": "x" * entries.LONGEST_RESULT})
    short = json.dumps({"language": "de", "text": "x" * 1_000})
    ended = {"processing_status": "completed", "completed_at": NOW}
    ids = [await add(pool, **ended, extracted_data=data) for data in (long, short)]
    assert await found(pool, "handler-result.language:de") == ids[1:]
    assert set(await found(pool, "päckchen")) == set(ids)


async def test_what_is_committed_late_is_found_too(pool: Pool) -> None:
    await found(pool, "begin")
    async with pool.acquire() as late, late.transaction():
        late_id = await late.fetchval(
            "INSERT INTO incoming_emails (from_email, subject) VALUES ('e@x.example', 'Late')"
            " RETURNING id"
        )
        soon_id = await add(pool, subject="Soon")
        assert await found(pool, "soon") == [soon_id]
        assert await found(pool, "late") == []
    assert await found(pool, "late") == [late_id]


@pytest.mark.parametrize("is_first", [True, False])
async def test_what_has_written_nothing_yet_is_found_later(pool: Pool, is_first: bool) -> None:
    if not is_first:
        await found(pool, "begin")
    async with pool.acquire() as late, late.transaction():
        # As an INSERT does that looks something up first: it has no number at the server so far.
        await late.execute("SELECT now()")
        soon_id = await add(pool, subject="Soon")
        assert await found(pool, "soon") == [soon_id]
        late_id = await late.fetchval(
            "INSERT INTO incoming_emails (from_email, subject) VALUES ('e@x.example', 'Late')"
            " RETURNING id"
        )
    assert await found(pool, "late") == [late_id]


@pytest.mark.parametrize(
    "columns",
    [
        # Signs that are nothing but accents.
        {"subject": "Odd (\u309c_\u309c)"},
        # As older versions stored what handlers returned.
        {"subject": "Odd", "extracted_data": '{"half": "\\ud800", "nul\\u0000": "a"}'},
        {"subject": "Odd", "extracted_data": json.dumps({"long": "\ud800" + "x" * 200})},
    ],
)
async def test_no_email_keeps_others_from_being_found(pool: Pool, columns: dict[str, str]) -> None:
    ended = {"processing_status": "completed", "completed_at": NOW}
    odd_id = await add(pool, **ended, **columns)
    other_id = await add(pool, subject="Another")
    assert await found(pool, "another") == [other_id]
    assert await found(pool, "odd") == [odd_id]


async def test_more_than_a_batch_is_caught_up_with(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "BATCH", 2)
    await found(pool, "begin")
    for _ in range(3):
        await add(pool, subject="Flood")
    assert len(await found(pool, "flood")) == 3
    for _ in range(9):
        await add(pool, subject="Flood")
    assert len(await found(pool, "flood")) < 12
    assert len(await found(pool, "flood")) < 12
    assert len(await found(pool, "flood")) == 12


async def test_an_entry_goes_with_its_email(pool: Pool) -> None:
    email_id = await add(pool)
    other_id = await add(pool, subject="Another")
    assert await found(pool, "päckchen") == [email_id]
    await erasure.erase_email(pool, email_id, by="olga")
    rows = await pool.fetch("SELECT email FROM search_entries")
    assert [row["email"] for row in rows] == [other_id]


@pytest.mark.parametrize(
    "erased",
    [
        "DELETE FROM incoming_emails WHERE id = $1",
        "UPDATE incoming_emails SET erased_at = now(), subject = '' WHERE id = $1",
    ],
)
async def test_an_entry_goes_with_an_email_that_an_older_version_erases(
    pool: Pool, erased: str
) -> None:
    email_id = await add(pool)
    other_id = await add(pool, subject="Another")
    assert await found(pool, "päckchen") == [email_id]
    await pool.execute(erased, email_id)
    rows = await pool.fetch("SELECT email FROM search_entries")
    assert [row["email"] for row in rows] == [other_id]


async def test_no_entry_is_made_of_what_is_being_erased(pool: Pool) -> None:
    email_id = await add(pool)
    async with pool.acquire() as erasing, erasing.transaction():
        await erasing.execute("DELETE FROM incoming_emails WHERE id = $1", email_id)
        async with pool.acquire() as indexing:
            await indexing.execute("SET lock_timeout = '100ms'")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await entries.index_batch(indexing)
            await indexing.execute("RESET lock_timeout")
    assert await found(pool, "päckchen") == []
    assert await pool.fetchval("SELECT count(*) FROM search_entries") == 0


async def test_pages_lead_both_ways_whichever_way_finds_them(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [
        await add(pool, subject=f"Even {n}" if n % 2 == 0 else "Odd", received_at=NOW + n * SECOND)
        for n in range(20)
    ]
    evens = [ids[n] for n in range(18, -1, -2)]
    for few, walked in ((-1, email_pages.WALKED), (-1, 2), (email_pages.FEW, 2)):
        monkeypatch.setattr(email_pages, "FEW", few)
        monkeypatch.setattr(email_pages, "WALKED", walked)
        for text in ("even", "status:received even", "status:received status:queued even"):
            search = read_search(text)
            first = await find_page(pool, search, limit=4)
            assert [row["id"] for row in first.rows] == evens[:4], text
            assert (first.has_newer, first.has_older) == (False, True)
            second = await find_page(pool, search, limit=4, after=first.last)
            assert [row["id"] for row in second.rows] == evens[4:8], text
            last = await find_page(pool, search, limit=4, after=second.last)
            assert [row["id"] for row in last.rows] == evens[8:], text
            assert (last.has_newer, last.has_older) == (True, False)
            back = await find_page(pool, search, limit=4, before=last.first)
            assert [row["id"] for row in back.rows] == evens[4:8], text
            assert back.has_newer
            start = await find_page(pool, search, limit=4, before=back.first)
            assert [row["id"] for row in start.rows] == evens[:4], text
            assert not start.has_newer


FILL = """
INSERT INTO incoming_emails (from_email, subject, processing_status, completed_at, received_at)
SELECT n || '@example.com', 'Number ' || n, 'completed', now(), now() - n * interval '1 minute'
FROM generate_series(1, 3000) AS n
"""
SAY_MILLIONS = """
UPDATE pg_class SET reltuples = 5000000
WHERE oid IN ('incoming_emails'::regclass, 'search_entries'::regclass)
"""


async def test_what_ended_long_ago_is_not_looked_for_among_what_came_since(pool: Pool) -> None:
    month = timedelta(days=30)
    ended = {"processing_status": "completed", "completed_at": NOW - month}
    old = await add(pool, received_at=NOW - month - SECOND, **ended)
    # Whose web process has a clock that goes ahead.
    ahead = await add(pool, received_at=NOW - month + 60 * SECOND, **ended)
    await add(pool, processing_status="completed", completed_at=NOW)
    day = f"{NOW - month:%Y-%m-%d}"
    for text in (f"ended:{day}", f"ended:{day} status:completed", f"ended:{day} päckchen"):
        assert await found(pool, text) == [ahead, old], text
    query, parameters = email_pages.page_query(read_search(f"ended:..{day}"), limit=51)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        rows = await connection.fetch(f"EXPLAIN {query}", *parameters)
    plan = "\n".join(row[0] for row in rows)
    assert "Index Cond: (received_at < " in plan, plan


@pytest.mark.parametrize("kind", ["force_custom_plan", "force_generic_plan"])
async def test_no_search_by_words_reads_a_table_whole(pool: Pool, kind: str) -> None:
    async with pool.acquire() as connection:
        await connection.execute(f"SET plan_cache_mode = {kind}")
        await connection.execute(FILL)
        progress = await entries.index_batch(connection, older=True)
        while progress.older_than is not None:
            progress = await entries.index_batch(connection, older=True)
        await connection.execute("ANALYZE incoming_emails, search_entries")
        await connection.execute(SAY_MILLIONS)
        for text in (
            "2999",
            "number",
            "status:failed number 2999",
            "from:example.com has:attachment",
            "error:timeout received:2026-11-01..",
        ):
            search, after = read_search(text), Cursor(NOW, UUID(int=0))
            # What all have is no case for the index of words.
            for make, index in (
                (email_pages.walk_query, "ix_incoming_emails_"),
                (email_pages.index_query, "ix_search_entries_words"),
            )[: 1 if text == "number" else 2]:
                query, parameters = make(search, limit=51, after=after)
                rows = await connection.fetch(f"EXPLAIN {query}", *parameters)
                plan = "\n".join(row[0] for row in rows)
                assert index in plan, f"{text}: {plan}"
                assert "Seq Scan" not in plan, f"{text}: {plan}"
                assert "Join" not in plan, f"{text}: {plan}"
        # What the chore asks, and whoever searches.
        for query, asked in (
            (entries.STORED, (NOW, NOW + SECOND, 500)),
            *((query, (NOW, 500)) for query in entries.ENDED),
            (entries.OLDER, (NOW, entries.LOWEST_ID, 500)),
            (entries.WITHOUT_ENTRY, ([UUID(int=0)],)),
            (entries.BY_IDS, ([UUID(int=0)],)),
        ):
            rows = await connection.fetch(f"EXPLAIN {query}", *asked)
            plan = "\n".join(row[0] for row in rows)
            assert "Seq Scan" not in plan, plan
