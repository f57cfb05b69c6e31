"""How fast accepted emails are worked off, by Mailroom and by its peers.

    python -m benchmarks jobs [--quick]

Each contender has one worker process, a database of its own on the same PostgreSQL, and emails of
3 KB. The contenders take turns, so that a noisy machine disturbs them alike. The cases:

empty    a backlog, and a handler that does nothing
wait     a backlog, and a handler that waits 100 ms, 200 at once
light    no backlog, 20 emails a second: how soon one is begun, and completed
steady   the same with 150 a second
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs

from benchmarks.contenders.contender import Contender, Load
from benchmarks.contenders.registry import NAMES, make_contenders
from benchmarks.drain import Latencies, drain, pace
from benchmarks.machine import describe_machine, versions
from benchmarks.report import print_results
from benchmarks.results import Results, percentile
from benchmarks.servers import Servers, running_servers

T = TypeVar("T")

AT_ONCE = 200
LOADS = {"empty": Load("empty", None), "wait": Load("wait", AT_ONCE)}
RATES = {"light": 20.0, "steady": 150.0}
CASES = (*LOADS, *RATES)
MOST_EMAILS = 40_000
# So fast one is taken to be until it was measured once.
FIRST_GUESS = 400.0


@attrs.frozen
class Plan:
    """How long a run takes."""

    rounds: int
    seconds: float
    """About how long one backlog lasts."""

    pace_rounds: int
    pace_seconds: float
    """How long emails come at a steady rate."""

    least: int = 200
    """Of a backlog, whoever takes however long."""

    warms_up: bool = True
    """Whether a round comes first that is not noted, and tells how many emails last so long."""

    def emails_for(self, per_second: float) -> int:
        """How many emails make a backlog of this plan's length."""
        return max(self.least, min(MOST_EMAILS, int(per_second * self.seconds)))


FULL = Plan(rounds=5, seconds=6.0, pace_rounds=3, pace_seconds=15.0)
QUICK = Plan(rounds=2, seconds=1.5, pace_rounds=1, pace_seconds=4.0)
TINY = Plan(rounds=1, seconds=0.1, pace_rounds=1, pace_seconds=0.5, least=50, warms_up=False)
PLANS = {"full": FULL, "quick": QUICK, "tiny": TINY}


class Turns:
    """Lets contenders take turns, and notes what comes of it.

    Who fails is left out from there on, and that is told.
    """

    def __init__(self, contenders: Sequence[Contender], results: Results) -> None:
        self._standing = list(contenders)
        self._results = results

    async def set_up(self) -> None:
        """Prepare each one's database."""
        for contender in [*self._standing]:
            await self._try(contender, lambda contender=contender: _set_up(contender))

    async def backlogs(self, case: str, plan: Plan) -> None:
        """Measure how fast a backlog is worked off."""
        counts = {contender.name: plan.emails_for(FIRST_GUESS) for contender in self._standing}
        for number in range(0 if plan.warms_up else 1, plan.rounds + 1):
            for contender in [*self._standing]:
                name = contender.name
                drained = await self._try(
                    contender,
                    lambda contender=contender, name=name: drain(
                        contender, LOADS[case], counts[name]
                    ),
                )
                if drained is None:
                    continue
                if number:
                    self._results.add(case, name, **attrs.asdict(drained))
                else:
                    counts[name] = plan.emails_for(drained.per_second)
            print(f"{case}: round {number} of {plan.rounds}", flush=True)

    async def paces(self, case: str, plan: Plan) -> None:
        """Measure how soon an email is begun that comes at a steady rate."""
        for number in range(plan.pace_rounds):
            for contender in [*self._standing]:
                latencies = await self._try(
                    contender,
                    lambda contender=contender: pace(
                        contender, LOADS["empty"], rate=RATES[case], seconds=plan.pace_seconds
                    ),
                )
                if latencies is not None:
                    self._results.add(case, contender.name, **percentiles(latencies))
            print(f"{case}: round {number + 1} of {plan.pace_rounds}", flush=True)

    async def _try(self, contender: Contender, work: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await work()
        except Exception as error:  # noqa: BLE001 - one that fails must not cost the others' figures
            print(f"{contender.name} is left out from here on: {error}", flush=True)
            self._standing.remove(contender)
            self._results.left_out[contender.title] = _first_line(error)
            return None


async def _set_up(contender: Contender) -> None:
    contender.set_up()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def percentiles(latencies: Latencies) -> dict[str, float]:
    """What is told of latencies: milliseconds."""
    told = {}
    for name, seconds in (
        ("begun", latencies.until_begun),
        ("completed", latencies.until_completed),
    ):
        for share in (0.5, 0.9, 0.99) if seconds else ():
            told[f"{name}_p{share * 100:g}"] = percentile(seconds, share) * 1000
    return told


async def measure(
    servers: Servers, plan: Plan, names: Sequence[str], cases: Sequence[str]
) -> Results:
    """Let the contenders of these names take turns in these cases."""
    results = Results("jobs", machine=describe_machine(servers))
    contenders = make_contenders(servers, names, results.left_out.__setitem__)
    results.titles = {contender.name: contender.title for contender in contenders}
    results.notes = {contender.name: contender.keeps for contender in contenders}
    results.versions = versions(
        package for contender in contenders for package in contender.packages
    )
    turns = Turns(contenders, results)
    await turns.set_up()
    for case in cases:
        await (turns.backlogs if case in LOADS else turns.paces)(case, plan)
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this part can be told."""
    parser.add_argument(
        "--contenders", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=str(NAMES)
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE")


def run(arguments: argparse.Namespace) -> Results:
    """Measure as told."""
    with running_servers() as servers:
        plan = PLANS[arguments.length]
        return asyncio.run(measure(servers, plan, arguments.contenders, arguments.cases))


def show(results: Results) -> None:
    """Print what was found."""
    print_results(results, {case: "per_second" if case in LOADS else "begun_p99" for case in CASES})
