"""Whether old emails are removed beside the traffic without harm, and whether their room is used
again.

    python -m benchmarks retention [--rows 5000000] [--due 4000000] [--rate 200] [--size 1500]

A table of many emails, most of them older than they are to be kept. One web process takes webhooks
at a steady rate and one worker process works them off, in turns for a while without pruning and for
a while beside `mailroom prune`, so that what else the machine does falls on both. Then all that is
due is removed, old emails come again until there are as many as before, and the sizes are looked
at.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import attrs
import psycopg

from app.retention.pruner import NAME
from benchmarks.__main__ import leave_own_settings
from benchmarks.machine import describe_machine
from benchmarks.old_emails import fill
from benchmarks.paced_client import Answers, PacedClient
from benchmarks.processes import Process, running
from benchmarks.receivers import RECEIVERS, SECRET, Seat
from benchmarks.servers import Servers, running_servers

KEEP_DAYS = 90
DAY = 86_400
SETTLE_SECONDS = 5.0
LOOK_SECONDS = 1.0
TELL_SECONDS = 15.0
VACUUM_PATIENCE_SECONDS = 1_800.0
GIGA = 1e9

HAS_BEGUN = "SELECT running_by LIKE '%:' || $2 FROM chores WHERE name = $1"
# What the command says where the worker looks at that moment whether it has something to remove.
IS_BUSY = "wait for its end"
NOTE = "SELECT last_note FROM chores WHERE name = $1"
WITHOUT = "without pruning"
BESIDE = "beside pruning"
SIZES = """
SELECT pg_relation_size(c.oid) AS heap, pg_total_relation_size(c.reltoastrelid) AS toast,
    pg_indexes_size(c.oid) AS indexes
FROM pg_class AS c WHERE c.oid = 'incoming_emails'::regclass
"""
# Whether autovacuum has nothing more to do, by its own defaults.
IS_VACUUMED = """
SELECT bool_and(n_dead_tup < 50 + 0.2 * GREATEST(reltuples, 0))
FROM pg_stat_all_tables AS s JOIN pg_class AS c ON c.oid = s.relid
WHERE c.oid = 'incoming_emails'::regclass
    OR c.oid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'incoming_emails'::regclass)
"""
COUNT = "SELECT count(*) FROM incoming_emails"
# The old emails have no entries of words. A worker would make them meanwhile, which is the work of
# an upgrade, and would be measured, too.
MARK_AS_INDEXED = """
INSERT INTO search_marks (id, stored_until, ended_until) VALUES (1, now(), now())
"""
WITHOUT_AUTOVACUUM = (
    "ALTER TABLE incoming_emails SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)",
    "ALTER TABLE incoming_emails RESET (autovacuum_enabled, toast.autovacuum_enabled)",
)


@attrs.frozen
class Plan:
    """How much is measured."""

    rows: int
    due: int
    rate: float
    size: int
    seconds: float
    """Of each turn."""
    turns: int
    """Without pruning and beside it, each."""


@attrs.frozen
class Sizes:
    """Bytes of the table and of what belongs to it."""

    heap: int
    toast: int
    indexes: int


@attrs.define
class Found:
    """What was measured."""

    answers: list[tuple[str, Answers]] = attrs.field(factory=list)
    """Of each turn."""
    sizes: dict[str, Sizes] = attrs.field(factory=dict)
    seconds: float = 0.0
    note: str = ""
    vacuum_seconds: float = 0.0

    def add(self, name: str, answers: Answers) -> None:
        """Keep what a turn was like, and print it."""
        self.answers.append((name, answers))
        p50, p99, last = (answers.percentile(share) for share in (0.5, 0.99, 0.999))
        print(
            f"{name:<18}{len(answers.latencies):>8,} answered{answers.refused:>5,} refused"
            f"   p50 {p50:.1f} ms   p99 {p99:.1f} ms   p99.9 {last:.1f} ms",
            flush=True,
        )


def insert(url: str, run: str, count: int, size: int, *, oldest: int, youngest: int) -> None:
    """Insert emails that ended between so many days ago."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(WITHOUT_AUTOVACUUM[0])
        fill(url, count, run=run, size=size, oldest=oldest * DAY, youngest=youngest * DAY)
        connection.execute(WITHOUT_AUTOVACUUM[1])
    print(f"{count:,} emails inserted in {time.monotonic() - began:.0f} s", flush=True)


@contextlib.contextmanager
def running_mailroom(servers: Servers, seat: Seat) -> Iterator[list[Process]]:
    """A web process and a worker process, for the time of this block."""
    environment = environment_of(servers, seat)
    worker = [sys.executable, "-m", "dramatiq", "app.worker", "--processes", "1"]
    with (
        running(seat.command(), environment, servers.folder / "web.log") as web,
        running(worker, environment, servers.folder / "worker.log") as working,
    ):
        seat.process = web
        seat.wait()
        yield [web, working]


def environment_of(servers: Servers, seat: Seat) -> dict[str, str]:
    """What all processes are started with; by it nothing is removed."""
    return {
        **seat.environment(servers),
        "MAILROOM_QUEUE": seat.queue,
        "MAILROOM_ATTACHMENTS": "off",
    }


@contextlib.asynccontextmanager
async def pruning(
    servers: Servers, seat: Seat, connection: "asyncpg.Connection[asyncpg.Record]"
) -> AsyncIterator[Process]:
    """The command that removes, for the time of this block; it goes on where it was."""
    environment = {
        **environment_of(servers, seat),
        "MAILROOM_KEEP_COMPLETED_DAYS": str(KEEP_DAYS),
    }
    command = [sys.executable, "-m", "app.cli.main", "prune"]
    while True:
        block = running(command, environment, servers.folder / "prune.log", signal.SIGINT)
        process = block.__enter__()
        try:
            if await begins(process, connection):
                yield process
                return
        finally:
            # The client posts on meanwhile.
            await asyncio.to_thread(block.__exit__, None, None, None)


async def begins(process: Process, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Wait until a command removes. Returns whether it does: another may have been first.

    Raises:
        RuntimeError: it failed.
    """
    while not await connection.fetchval(HAS_BEGUN, NAME, str(process.popen.pid)):
        if process.popen.poll() and IS_BUSY in process.last_words():
            return False
        process.check()
        await asyncio.sleep(0.1)
    return True


async def measure(servers: Servers, plan: Plan) -> Found:
    """Measure all of it."""
    found = Found()
    seat = Seat.make(RECEIVERS[0], servers)
    url = seat.database_url
    insert(url, "old", plan.due, plan.size, oldest=450, youngest=KEEP_DAYS + 1)
    insert(url, "young", plan.rows - plan.due, plan.size, oldest=KEEP_DAYS - 1, youngest=1)
    servers.settle(url)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(MARK_AS_INDEXED)
        found.sizes["before"] = await look(connection)
        with running_mailroom(servers, seat):
            client = PacedClient(seat.port, SECRET, rate=plan.rate, size=plan.size)
            async with client.running():
                for _ in range(plan.turns):
                    found.add(WITHOUT, await listen(client, plan.seconds))
                    async with pruning(servers, seat, connection):
                        found.add(BESIDE, await listen(client, plan.seconds))
                        print(f"  {await connection.fetchval(NOTE, NAME)}", flush=True)
                await prune(servers, seat, connection, found)
                found.sizes["pruned"] = await look(connection)
            found.vacuum_seconds = await wait_for_vacuum(connection)
        found.sizes["vacuumed"] = await look(connection)
        missing = plan.rows - await connection.fetchval(COUNT)
        await asyncio.to_thread(
            insert, url, "again", missing, plan.size, oldest=450, youngest=KEEP_DAYS + 1
        )
        found.sizes["as many again"] = await look(connection)
    finally:
        await connection.close()
    return found


async def listen(client: PacedClient, seconds: float) -> Answers:
    """What is answered for a while, after what was before has died away."""
    await asyncio.sleep(SETTLE_SECONDS)
    client.take()
    await asyncio.sleep(seconds)
    return client.take()


async def prune(
    servers: Servers,
    seat: Seat,
    connection: "asyncpg.Connection[asyncpg.Record]",
    found: Found,
) -> None:
    """Have all removed that is left.

    Raises:
        RuntimeError: it failed.
    """
    began = told_at = time.monotonic()
    async with pruning(servers, seat, connection) as process:
        while not process.has_ended():
            await asyncio.sleep(LOOK_SECONDS)
            if time.monotonic() > told_at + TELL_SECONDS:
                told_at = time.monotonic()
                note = await connection.fetchval(NOTE, NAME)
                print(f"  {told_at - began:.0f} s: {note}", flush=True)
    found.seconds, found.note = time.monotonic() - began, await connection.fetchval(NOTE, NAME)


async def wait_for_vacuum(connection: "asyncpg.Connection[asyncpg.Record]") -> float:
    """Wait until autovacuum has done its part. Returns the seconds."""
    began = time.monotonic()
    while not await connection.fetchval(IS_VACUUMED):
        if time.monotonic() > began + VACUUM_PATIENCE_SECONDS:
            print("autovacuum has not come to an end", flush=True)
            break
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def look(connection: "asyncpg.Connection[asyncpg.Record]") -> Sizes:
    """How large all is now."""
    row = await connection.fetchrow(SIZES)
    return Sizes(**dict(row or {}))


def show(found: Found, plan: Plan) -> None:
    """Print what was measured."""
    print(f"\nwhat was left: {found.note}, in {found.seconds:.0f} s\n")
    for share in (0.5, 0.99):
        ratios = [
            beside.percentile(share) / without.percentile(share)
            for (_, without), (_, beside) in zip(
                found.answers[::2], found.answers[1::2], strict=True
            )
        ]
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{share:.0%} of the webhooks: beside pruning {told} times as long as without")
    print(f"{'size, GB':<18}{'table':>10}{'TOAST':>10}{'indexes':>10}{'together':>10}")
    for name, sizes in found.sizes.items():
        parts = attrs.astuple(sizes)
        print(f"{name:<18}" + "".join(f"{part / GIGA:>10.2f}" for part in (*parts, sum(parts))))
    totals = {name: sum(attrs.astuple(sizes)) for name, sizes in found.sizes.items()}
    for name in ("before", "pruned"):
        grown = totals["as many again"] / totals[name] - 1
        print(f"as many again, beside what it was {name}: {grown:+.1%}")
    print(f"autovacuum was waited for {found.vacuum_seconds:.0f} s")


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks retention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=5_000_000, help="emails in all")
    parser.add_argument("--due", type=int, help="of them to be removed [default: four fifths]")
    parser.add_argument("--rate", type=float, default=200.0, help="webhooks a second")
    parser.add_argument("--size", type=int, default=1_500, help="bytes of an email's JSON")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3, help="without pruning and beside it")
    told = parser.parse_args()
    due = told.rows * 4 // 5 if told.due is None else told.due
    if not 0 < due <= told.rows:
        parser.error("--due has to be between 1 and --rows")
    plan = Plan(told.rows, due, told.rate, told.size, told.seconds, told.turns)
    leave_own_settings()
    with running_servers() as servers:
        for name, value in describe_machine(servers).items():
            print(f"{name}: {value}")
        found = asyncio.run(measure(servers, plan))
    show(found, plan)


if __name__ == "__main__":
    main()
