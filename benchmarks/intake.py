"""How fast the webhook route takes email, beside other ways to write it.

    python -m benchmarks intake [--quick]

Each contender is one web process with a database of its own on the same PostgreSQL, and is posted
the same signed emails over 1, 8, 32 and 128 connections that each wait for their answer. The
contenders take turns, so that a noisy machine disturbs them alike. A case is named by the size of
the emails and the connections, such as 30 KB, 32.
"""

import argparse
import contextlib
from collections.abc import Sequence

import attrs
import psycopg
import uvloop

from benchmarks.machine import describe_machine, versions
from benchmarks.pgbench import insert_all
from benchmarks.processes import cpu_seconds, running
from benchmarks.receivers import PGBENCH, RECEIVERS, SECRET, Seat, seats
from benchmarks.report import print_results
from benchmarks.results import Results, percentile
from benchmarks.servers import Servers, running_servers
from benchmarks.web_client import Answered, make_requests, post_all

NAMES = tuple(receiver.name for receiver in RECEIVERS)
CONNECTIONS = (1, 8, 32, 128)
KILOBYTES = (1, 30, 300)
MOST_REQUESTS = 30_000
# What is held in memory to be posted.
MOST_BYTES = 128 * 1024 * 1024


@attrs.frozen
class Plan:
    """How long a run takes."""

    rounds: int
    seconds: float
    """About how long one contender is posted to in a round."""

    least: int = 100
    """Emails of a round, whoever takes however long."""

    def requests_for(self, per_second: float, size: int) -> int:
        """How many emails last about so long."""
        most = min(MOST_REQUESTS, MOST_BYTES // size)
        return max(self.least, min(most, int(per_second * self.seconds)))


FULL = Plan(rounds=5, seconds=3.0)
QUICK = Plan(rounds=2, seconds=1.0)
TINY = Plan(rounds=1, seconds=0.1, least=20)
PLANS = {"full": FULL, "quick": QUICK, "tiny": TINY}


def case_name(kilobytes: int, connections: int) -> str:
    """What a case is called."""
    return f"{kilobytes} KB, {connections}"


def measure_once(
    servers: Servers, seat: Seat, *, size: int, connections: int, count: int
) -> dict[str, float]:
    """Have one contender take so many emails."""
    with psycopg.connect(seat.database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE incoming_emails")
        connection.execute("CHECKPOINT")
    server = servers.server_pid()
    web = seat.process.popen.pid if seat.process is not None else 0
    requests = make_requests(seat.port, SECRET, size, count) if web else []
    spent = cpu_seconds(web) if web else 0.0, cpu_seconds(server)
    written = servers.log_bytes()
    answered: Answered
    if seat.process is None:
        answered = insert_all(
            seat.database_url, servers.folder, size=size, connections=connections, count=count
        )
    else:
        answered = uvloop.run(post_all(seat.port, requests, connections))
    emails = len(answered.latencies)
    measures = {
        "per_second": emails / answered.seconds,
        **{
            f"p{share * 100:g}": percentile(answered.latencies, share) * 1000
            for share in (0.5, 0.9, 0.99)
        },
        "server_cpu": (cpu_seconds(server) - spent[1]) * 1000 / emails,
        "log_bytes": (servers.log_bytes() - written) / emails,
    }
    if seat.process is not None:
        measures["web_cpu"] = (cpu_seconds(web) - spent[0]) * 1000 / emails
        measures["memory"] = seat.process.memory_bytes()
    return measures


def measure_case(
    servers: Servers, standing: list[Seat], results: Results, plan: Plan, case: tuple[int, int]
) -> None:
    """Let the contenders take turns. A first round, which is not noted, warms up and tells how many
    emails last so long. Who fails is left out from there on."""
    kilobytes, connections = case
    counts = {seat.receiver.name: max(plan.least, 2 * connections) for seat in standing}
    for number in range(plan.rounds + 1):
        for seat in [*standing]:
            name = seat.receiver.name
            try:
                measures = measure_once(
                    servers,
                    seat,
                    size=kilobytes * 1000,
                    connections=connections,
                    count=counts[name],
                )
            except Exception as error:  # noqa: BLE001 - it must not cost the others' figures
                print(f"{name} is left out from here on: {error}", flush=True)
                first = str(error).partition("\n")[0]
                why = f"from {case_name(*case)} on: {type(error).__name__}: {first}"
                results.left_out[seat.receiver.title] = why
                standing.remove(seat)
                continue
            counts[name] = plan.requests_for(measures["per_second"], kilobytes * 1000)
            if number:
                results.add(case_name(*case), name, **measures)
    print(f"{case_name(*case)}: done", flush=True)


def measure(
    servers: Servers, plan: Plan, names: Sequence[str], cases: Sequence[tuple[int, int]]
) -> Results:
    """Let the contenders of these names take turns in these cases."""
    results = Results("intake", machine=describe_machine(servers))
    standing = seats(servers, tuple(names), results.left_out.__setitem__)
    results.titles = {seat.receiver.name: seat.receiver.title for seat in standing}
    results.notes = {seat.receiver.name: seat.receiver.note for seat in standing}
    results.versions = versions(package for seat in standing for package in seat.receiver.packages)
    with contextlib.ExitStack() as stack:
        for seat in standing:
            stack.callback(seat.clear)
            if seat.receiver.name == PGBENCH:
                continue
            log = servers.folder / f"{seat.receiver.name}.log"
            seat.process = stack.enter_context(
                running(seat.command(), seat.environment(servers), log)
            )
        for seat in standing:
            if seat.process is not None:
                seat.wait()
        for case in cases:
            measure_case(servers, standing, results, plan, case)
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this part can be told."""
    parser.add_argument(
        "--contenders", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=str(NAMES)
    )
    parser.add_argument("--connections", nargs="+", type=int, default=CONNECTIONS, metavar="N")
    parser.add_argument("--kilobytes", nargs="+", type=int, default=KILOBYTES, metavar="KB")


def run(arguments: argparse.Namespace) -> Results:
    """Measure as told."""
    cases = [
        (kilobytes, connections)
        for kilobytes in arguments.kilobytes
        for connections in arguments.connections
    ]
    with running_servers() as servers:
        return measure(servers, PLANS[arguments.length], arguments.contenders, cases)


def show(results: Results) -> None:
    """Print what was found."""
    print_results(results, dict.fromkeys(results.figures, "per_second"))
