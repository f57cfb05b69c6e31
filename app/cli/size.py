"""`mailroom size`: from what is expected to what is needed. docs/capacity.md says which of the
figures were measured and which are computed.
"""

import math

import attrs
import click
from rich.table import Table

from app.cli.amounts import Amount
from app.cli.printing import say_table

# Of docs/benchmarks.md, on two processors of an Intel Xeon: CPU milliseconds an email, and more for
# each KB of its body. Intake at 32 connections, a line through bodies of 1, 30 and 300 KB that lies
# within a sixth of each; jobs of 3 KB with an empty handler, over PostgreSQL.
WEB_MS, WEB_MS_A_KB = 0.27, 0.0126
INTAKE_MS, INTAKE_MS_A_KB = 0.035, 0.0366
WORKER_MS, JOB_MS = 0.13, 0.2
# What the cleaned text costs to write: half of what text and payload do. Not measured.
JOB_MS_A_KB = INTAKE_MS_A_KB / 2
# Bytes an email, and for each of its body's: measured at 1, 3, 30 and 300 KB, with indexes and
# TOAST. The body is there as it came, in the payload, and cleaned, each compressed.
ROW_BYTES, ROW_BYTES_A_BYTE = 2_000, 0.95
# The log of changes: what is stored once more, and three changes of state.
LOG_BYTES = 2_500

# As docs/operations.md counts them.
CONNECTIONS_OF_WEB = 13
CONNECTIONS_OF_WORKER = 21
CONNECTIONS_OF_BROKER = 16
HANDLERS_OF_PROCESS = 20
# The rest is for what is uneven.
USED_SHARE = 0.6
LEAST_PROCESSES = 2

DAY_SECONDS = 86_400
EMBEDDED_CONNECTIONS = 100
EMBEDDED_BYTES = 20e9
# PostgreSQL on more than that many cores for itself is one that other tools are made for.
LARGEST_POSTGRES_CORES = 24


@attrs.frozen(kw_only=True)
class Expected:
    """What comes, and how long it is kept."""

    emails_a_day: int
    body_kb: float
    files: float
    """An email, on average."""
    file_kb: float
    keep_days: float
    handler_ms: float
    """That a handler takes, waiting included."""
    handler_cpu_ms: float
    """Of that, computing."""
    peak: float
    """How many times more email comes at the busiest moment than on average."""


@attrs.frozen(kw_only=True)
class Needed:
    """What that takes at the busiest moment."""

    emails_a_second: float
    web_processes: int
    worker_processes: int
    web_cores: float
    worker_cores: float
    postgres_cores: float
    connections: int
    has_broker: bool
    """Whether Redis or RabbitMQ is advised."""
    database_bytes: float
    store_bytes: float
    log_bytes_a_day: float

    @property
    def cores(self) -> float:
        """Of all machines, with room for what is uneven."""
        return (self.web_cores + self.worker_cores + self.postgres_cores) / USED_SHARE

    @property
    def postgres(self) -> str:
        """Where PostgreSQL belongs."""
        if self.postgres_cores / USED_SHARE > LARGEST_POSTGRES_CORES:
            return "more than one machine: split by brand, a Mailroom with a PostgreSQL for each"
        if self.postgres_cores / USED_SHARE > 1 or self.cores > 4:
            return "a machine of its own"
        if self.connections > EMBEDDED_CONNECTIONS or self.database_bytes > EMBEDDED_BYTES:
            return "a server of its own, beside Mailroom or elsewhere"
        return "beside Mailroom; the embedded one is enough"


def cpu_ms(body_kb: float) -> tuple[float, float, float]:
    """CPU milliseconds of one email without its handler: web, worker, PostgreSQL."""
    postgres = INTAKE_MS + JOB_MS + (INTAKE_MS_A_KB + JOB_MS_A_KB) * body_kb
    return WEB_MS + WEB_MS_A_KB * body_kb, WORKER_MS, postgres


def most_a_second(cores: float, *, body_kb: float, handler_cpu_ms: float) -> float:
    """Emails a second from the webhook to the end, where all runs on one machine."""
    return cores * USED_SHARE * 1_000 / (sum(cpu_ms(body_kb)) + handler_cpu_ms)


def need(expected: Expected) -> Needed:
    """Compute it."""
    rate = expected.emails_a_day / DAY_SECONDS * expected.peak
    web_ms, worker_ms, postgres_ms = cpu_ms(expected.body_kb)
    web_cores = rate * web_ms / 1_000
    worker_cores = rate * (worker_ms + expected.handler_cpu_ms) / 1_000
    web = max(LEAST_PROCESSES, math.ceil(web_cores / USED_SHARE))
    at_once = rate * expected.handler_ms / 1_000
    workers = max(
        LEAST_PROCESSES,
        math.ceil(worker_cores / USED_SHARE),
        math.ceil(at_once / HANDLERS_OF_PROCESS / USED_SHARE),
    )
    postgres_cores = rate * postgres_ms / 1_000
    without_broker = web * CONNECTIONS_OF_WEB + workers * CONNECTIONS_OF_WORKER
    has_broker = postgres_cores > 1 or workers * CONNECTIONS_OF_BROKER > EMBEDDED_CONNECTIONS
    row_bytes = ROW_BYTES + ROW_BYTES_A_BYTE * expected.body_kb * 1_000
    kept = expected.emails_a_day * expected.keep_days
    return Needed(
        emails_a_second=rate,
        web_processes=web,
        worker_processes=workers,
        web_cores=web_cores,
        worker_cores=worker_cores,
        postgres_cores=postgres_cores,
        connections=without_broker + (0 if has_broker else workers * CONNECTIONS_OF_BROKER),
        has_broker=has_broker,
        database_bytes=kept * row_bytes,
        store_bytes=kept * expected.files * expected.file_kb * 1_000,
        log_bytes_a_day=expected.emails_a_day * (row_bytes + LOG_BYTES),
    )


MUST = Amount(0)


@click.command()
@click.option(
    "--emails-per-day", "emails_a_day", type=click.IntRange(1, 10**9), required=True, metavar="N"
)
@click.option("--body-kb", type=MUST, default=30.0, show_default=True, help="Of an email's text.")
@click.option("--files", type=MUST, default=0.3, show_default=True, help="Files an email.")
@click.option("--file-kb", type=MUST, default=250.0, show_default=True, help="Size of a file.")
@click.option("--keep-days", type=MUST, default=365.0, show_default=True, help="How long it stays.")
@click.option(
    "--handler-ms", type=MUST, default=100.0, show_default=True, help="What a handler takes."
)
@click.option(
    "--handler-cpu-ms", type=MUST, default=5.0, show_default=True, help="Of that, computing."
)
@click.option(
    "--peak",
    type=Amount(1),
    default=10.0,
    show_default=True,
    help="Busiest moment over the average.",
)
def size(**expected: float) -> None:
    """Reckon what an installation needs: processes, cores, connections, disk.

    The figures are those of docs/benchmarks.md on two cores; what is larger is computed from them.
    """
    needed = need(Expected(**expected))  # type: ignore[arg-type]
    broker = "Redis or RabbitMQ" if needed.has_broker else "PostgreSQL itself"
    table = Table(title="What it takes", show_header=False)
    for name, value in {
        "emails a second, busiest moment": f"{needed.emails_a_second:.1f}",
        "web processes": f"{needed.web_processes} ({needed.web_cores:.2f} cores busy)",
        "worker processes": f"{needed.worker_processes} ({needed.worker_cores:.2f} cores busy)",
        "PostgreSQL": f"{needed.postgres_cores:.2f} cores busy; {needed.postgres}",
        "cores in all": f"{math.ceil(needed.cores)}",
        "broker": broker,
        "connections to PostgreSQL, at most": f"{needed.connections}",
        "disk of the database": _told(needed.database_bytes),
        "store of files": _told(needed.store_bytes),
        "log of changes, a day": _told(needed.log_bytes_a_day),
    }.items():
        table.add_row(name, value)
    say_table(table)


def _told(size: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} KB"
