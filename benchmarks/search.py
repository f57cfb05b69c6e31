"""How long searches take in an archive of millions: each example of docs/search.md, and what is
hardest for an index.

    python -m benchmarks search [--emails 5000000] [--folder FOLDER]

The archive is made by statements of PostgreSQL, and so are the entries of its words, as
`app.search.words` makes them, or most of the time would go into that. A folder that is named is
kept, and its archive used again. The figures become a section of docs/benchmarks.md.
"""

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg

from app.api.email_pages import count_up_to, find_page
from app.api.search_text import read_search
from app.database.embedded.server import EmbeddedPostgres
from app.search.entries import index_batch
from benchmarks.__main__ import RESULTS, leave_own_settings
from benchmarks.archive import fill_archive, fill_entries
from benchmarks.document import write_search
from benchmarks.machine import describe_machine
from benchmarks.results import Results
from benchmarks.servers import PROJECT, Servers, running_servers

LISTED = 50
ROUNDS = 7
EXAMPLE = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
# What no example of the docs is: common and rare words together, and what nothing matches.
HARD = (
    "",
    "bestellung",
    "bestellung rechnung order",
    "tansatiru",
    "bestellung tansatiru",
    "nobodywroteso",
    "bestellung nobodywroteso",
    "from:gmail.example",
    "from:company777.example",
    "from:company777.example has:attachment status:failed",
    "from:gmail.example status:failed error:outofmemory",
    "status:failed error:nothingofthekind",
    "handler-result.customer.tier:gold",
    "handler-result.customer.tier:platinum",
    "sync:failed status:failed bestellung",
    "received:2025-02-01..2025-02-03 rechnung",
    "received:2025-02-01..2025-02-03 tansatiru",
    "ended:2025-02-01..2025-02-03 status:failed",
    "ended:2025-02-01..2025-02-03",
    "ended:2025-02-01..2025-02-03 status:completed",
    "sync:pending",
    "sync:not_applicable",
)
INDEXED = 5_000


def examples() -> list[str]:
    """The searches of the docs."""
    return EXAMPLE.findall((PROJECT / "docs" / "search.md").read_text())


async def measure(url: str, results: Results) -> None:
    """Search; each page as a person opens it, with what the index lacks written before."""
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        server = Path(f"/proc/{await pool.fetchval('SELECT pg_backend_pid()')}/schedstat")

        def processor_ms() -> float:
            """Of this process and of its PostgreSQL session: a busy machine adds little to it."""
            return time.process_time() * 1_000 + int(server.read_text().split()[0]) / 1e6

        await find_page(pool, read_search("warm"), limit=LISTED)
        for text in [*examples(), *HARD]:
            search = read_search(text)
            for _ in range(ROUNDS):
                began, used = time.perf_counter(), processor_ms()
                page = await find_page(pool, search, limit=LISTED)
                paged, used = time.perf_counter(), processor_ms() - used
                if page.has_older:
                    await count_up_to(pool, search)
                counted = time.perf_counter()
                results.add(
                    text or "(all)",
                    "mailroom",
                    processor_ms=used,
                    page_ms=(paged - began) * 1_000,
                    count_ms=(counted - paged) * 1_000,
                    rows=len(page.rows),
                )
            values = results.values(text or "(all)", "mailroom", "page_ms")
            used_all = results.values(text or "(all)", "mailroom", "processor_ms")
            print(
                f"{text:<60} {statistics.median(used_all):7.1f} of processor; first"
                f" {values[0]:7.1f}  median {statistics.median(values):7.1f}"
                f"  most {max(values):7.1f} ms",
                flush=True,
            )


async def measure_indexing(url: str, results: Results) -> None:
    """Write the newest entries anew."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "DELETE FROM search_entries WHERE email IN (SELECT id FROM incoming_emails"
            " ORDER BY created_at DESC LIMIT $1)",
            INDEXED,
        )
        await connection.execute("UPDATE search_marks SET older_than = now()")
        began, written = time.perf_counter(), 0
        while written < INDEXED:
            written += (await index_batch(connection, older=True)).written
        took = time.perf_counter() - began
        await connection.execute("UPDATE search_marks SET older_than = NULL")
    finally:
        await connection.close()
    results.add("(indexing)", "mailroom", per_second=written / took)
    print(f"{written / took:,.0f} entries a second written by one process", flush=True)


@contextlib.contextmanager
def kept_server(folder: Path) -> Iterator[Servers]:
    """PostgreSQL in a folder that stays."""
    server = EmbeddedPostgres(folder)
    server.acquire()
    servers = Servers(folder, server.url)
    try:
        yield servers
    finally:
        servers.close()
        server.release()


def main() -> None:
    """Measure as told."""
    leave_own_settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks search", description=__doc__)
    parser.add_argument("--emails", type=int, default=5_000_000, metavar="N")
    parser.add_argument("--folder", type=Path, help="of the database, which is kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with kept_server(arguments.folder) if arguments.folder else running_servers() as servers:
        url = servers.postgres_url
        subprocess.run(
            [sys.executable, "-m", "app.cli.main", "migrate"],
            cwd=PROJECT,
            env={**os.environ, "DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        with psycopg.connect(url, autocommit=True) as connection:
            there = connection.execute("SELECT count(*) FROM search_entries").fetchone()
        if there == (0,):
            fill_archive(url, arguments.emails)
            fill_entries(url)
        results = Results("search", machine=describe_machine(servers))
        results.titles = {"mailroom": f"{arguments.emails:,} emails"}
        asyncio.run(measure(url, results))
        asyncio.run(measure_indexing(url, results))
    print(f"\nkept as {results.save(arguments.results)}")
    print(f"written: {write_search(results)}")
