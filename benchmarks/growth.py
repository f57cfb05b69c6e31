"""Whether it stays fast: with many finished emails, a long backlog, and a transaction left open.

    python -m benchmarks growth [--quick] [--full]

The cases:

N finished      so many emails ended before; then a backlog is worked off by an empty handler
N waiting       so many emails wait; the first of them are worked off
nothing open    round after round on one table, three changes of state an email
left open       the same while a transaction is open elsewhere, so that nothing can be vacuumed
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import asyncpg
import attrs

from benchmarks.contenders.contender import Contender, Load
from benchmarks.contenders.registry import make_contenders
from benchmarks.drain import Drained, drain
from benchmarks.machine import describe_machine, versions
from benchmarks.report import print_results
from benchmarks.results import Results
from benchmarks.servers import Servers, running_servers

NAMES = ("mailroom-postgresql", "pgqueuer-same-work-100", "pgqueuer-100")
EMPTY = Load("empty", None)
CASES = ("finished", "waiting", "open")
NOTHING_OPEN, LEFT_OPEN = "nothing open", "left open"
MANY = 5_000_000
DEAD_ROWS = """
SELECT sum(n_dead_tup)::bigint FROM pg_stat_user_tables WHERE relname IN
    ('incoming_emails', 'pgqueuer')
"""


@attrs.frozen
class Plan:
    """How long a run takes, in emails."""

    rounds: int
    emails: int
    """Of each round, at most."""

    seconds: float
    """About how long a round lasts."""

    finished: tuple[int, ...]
    waiting: int
    open_rounds: int
    open_emails: int
    """Of each of those rounds. 17 times 20,000 emails change their state a million times."""


FULL = Plan(5, 30_000, 5.0, (0, 100_000, 1_000_000), 100_000, 17, 20_000)
QUICK = Plan(2, 5_000, 2.0, (0, 100_000), 20_000, 4, 2_000)
TINY = Plan(1, 50, 0.1, (0, 1_000), 200, 2, 50)
PLANS = {"full": FULL, "quick": QUICK, "tiny": TINY}


class Growth:
    """Measures one contender after the other in all cases; rounds of one case take turns."""

    def __init__(self, contenders: Sequence[Contender], results: Results, plan: Plan) -> None:
        self._standing = list(contenders)
        self._results = results
        self._plan = plan

    async def with_finished(self, finished: int) -> None:
        """Work backlogs off beside so many emails that ended."""
        case = f"{finished:,} finished"
        counts = {}
        for contender in self._standing:
            contender.keeps_database = False
            await contender.begin()
            await contender.finish()
            contender.fill_finished(finished)
            contender.keeps_database = True
            counts[contender.name] = min(self._plan.emails, 300)
        for number in range(self._plan.rounds + 1):
            for contender in self._standing:
                count = counts[contender.name]
                size = await database_bytes(contender)
                drained = await drain(contender, EMPTY, count)
                grown = (await database_bytes(contender) - size) / count
                fitting = int(drained.per_second * self._plan.seconds)
                counts[contender.name] = max(50, min(self._plan.emails, fitting))
                if number:
                    self._add(case, contender, drained, table_bytes=grown)
        print(f"{case}: done", flush=True)

    async def with_waiting(self, waiting: int) -> None:
        """Work off the first of so many."""
        case = f"{waiting:,} waiting"
        for _ in range(max(1, self._plan.rounds // 2)):
            for contender in self._standing:
                contender.keeps_database = False
                until = min(self._plan.emails, waiting // 2)
                self._add(case, contender, await drain(contender, EMPTY, waiting, until=until))
        print(f"{case}: done", flush=True)

    async def with_open(self, case: str) -> None:
        """Work off round after round on one table."""
        for contender in self._standing:
            contender.keeps_database = False
            await contender.begin()
            await contender.finish()
            contender.keeps_database = True
        async with contextlib.AsyncExitStack() as transactions:
            for contender in self._standing:
                if case == LEFT_OPEN:
                    await transactions.enter_async_context(left_open(contender.database_url))
            for _ in range(self._plan.open_rounds):
                for contender in self._standing:
                    drained = await drain(contender, EMPTY, self._plan.open_emails)
                    dead = await ask(contender, DEAD_ROWS)
                    self._add(case, contender, drained, dead_rows=dead)
        for contender in self._standing:
            values = self._results.values(case, contender.name, "per_second")
            self._results.add(case, contender.name, last_of_first=values[-1] / values[0])
        print(f"{case}: done", flush=True)

    def _add(self, case: str, contender: Contender, drained: Drained, **more: float) -> None:
        self._results.add(case, contender.name, **attrs.asdict(drained), **more)


async def ask(contender: Contender, query: str) -> int:
    """What a contender's database says."""
    connection = await asyncpg.connect(contender.database_url)
    try:
        return int(await connection.fetchval(query) or 0)
    finally:
        await connection.close()


async def database_bytes(contender: Contender) -> int:
    """Of all its tables and indexes."""
    return await ask(contender, "SELECT pg_database_size(current_database())")


@contextlib.asynccontextmanager
async def left_open(database_url: str) -> AsyncIterator[None]:
    """A transaction that sees the tables as they are now, as that of a backup does."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.fetch("SELECT FROM incoming_emails LIMIT 1")
        yield
    finally:
        await connection.close()


async def measure(
    servers: Servers, plan: Plan, names: Sequence[str], cases: Sequence[str]
) -> Results:
    """Let the contenders of these names grow."""
    results = Results("growth", machine=describe_machine(servers))
    contenders = make_contenders(servers, names, results.left_out.__setitem__)
    results.titles = {contender.name: contender.title for contender in contenders}
    results.notes = {contender.name: contender.keeps for contender in contenders}
    results.versions = versions(
        package for contender in contenders for package in contender.packages
    )
    for contender in contenders:
        contender.set_up()
    growth = Growth(contenders, results, plan)
    if "finished" in cases:
        for finished in plan.finished:
            await growth.with_finished(finished)
    if "waiting" in cases:
        await growth.with_waiting(plan.waiting)
    if "open" in cases:
        for case in (NOTHING_OPEN, LEFT_OPEN):
            await growth.with_open(case)
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this part can be told."""
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE")
    parser.add_argument(
        "--open-emails",
        type=int,
        metavar="N",
        help="that pass, in rounds, with nothing open and with a transaction left open",
    )
    parser.add_argument("--full", action="store_true", help="with 5 million finished emails, too")


def run(arguments: argparse.Namespace) -> Results:
    """Measure as told."""
    plan = PLANS[arguments.length]
    if arguments.full:
        plan = attrs.evolve(plan, finished=(*plan.finished, MANY))
    if arguments.open_emails:
        rounds = max(2, arguments.open_emails // plan.open_emails)
        plan = attrs.evolve(plan, open_rounds=rounds)
    with running_servers() as servers:
        return asyncio.run(measure(servers, plan, arguments.contenders, arguments.cases))


def show(results: Results) -> None:
    """Print what was found."""
    print_results(results, dict.fromkeys(results.figures, "per_second"))
