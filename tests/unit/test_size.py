"""What `mailroom size` reckons, and that the documents tell the same."""

import re

import attrs
import pytest
from click.testing import CliRunner
from support import PROJECT

from app.cli.main import main
from app.cli.size import (
    INTAKE_MS,
    INTAKE_MS_A_KB,
    JOB_MS,
    ROW_BYTES,
    ROW_BYTES_A_BYTE,
    Expected,
    cpu_ms,
    most_a_second,
    need,
    size,
)

DOCS = (PROJECT / "docs" / "capacity.md").read_text()
BENCHMARKS = (PROJECT / "docs" / "benchmarks.md").read_text()
# A line does not go through all of its points, and rounds lie apart by up to a quarter.
FITS_WITHIN = 1.4
TEAM = Expected(
    emails_a_day=10_000,
    body_kb=30,
    files=0.3,
    file_kb=250,
    keep_days=365,
    handler_ms=100,
    handler_cpu_ms=5,
    peak=10,
)


def test_a_usual_team_needs_the_least() -> None:
    needed = need(TEAM)
    assert needed.emails_a_second == pytest.approx(1.157, abs=0.001)
    assert (needed.web_processes, needed.worker_processes, needed.has_broker) == (2, 2, False)
    assert needed.cores < 1
    # As docs/operations.md counts: two of each, over PostgreSQL.
    assert needed.connections == 2 * 13 + 2 * (21 + 16)
    assert needed.database_bytes == 3_650_000 * (2_000 + 28_500)
    assert needed.store_bytes == 3_650_000 * 0.3 * 250_000
    assert needed.postgres == "a server of its own, beside Mailroom or elsewhere"


@pytest.mark.parametrize(
    ("more", "grows"),
    [
        ({"emails_a_day": 20_000_000}, {"web_processes", "worker_processes", "has_broker"}),
        ({"handler_ms": 600_000}, {"worker_processes"}),
        ({"handler_cpu_ms": 60_000}, {"worker_processes", "worker_cores"}),
        ({"body_kb": 3_000}, {"postgres_cores", "database_bytes", "log_bytes_a_day"}),
        ({"peak": 20_000}, {"emails_a_second", "web_processes", "has_broker"}),
    ],
)
def test_more_of_it_needs_more(more: dict[str, float], grows: set[str]) -> None:
    before, after = need(TEAM), need(attrs.evolve(TEAM, **more))
    assert all(getattr(after, name) > getattr(before, name) for name in grows)
    assert all(
        getattr(after, name) >= getattr(before, name)
        for name in ("web_cores", "worker_cores", "postgres_cores", "cores")
    )


def test_where_postgresql_belongs_grows_with_the_load() -> None:
    places = [
        need(attrs.evolve(TEAM, emails_a_day=count, keep_days=1)).postgres
        for count in (1_000, 5_000_000, 100_000_000)
    ]
    assert [place.split(":")[0].split(";")[0] for place in places] == [
        "beside Mailroom",
        "a machine of its own",
        "more than one machine",
    ]


def test_the_tables_of_the_documents_are_what_is_computed() -> None:
    kinds = ((3, 0), (30, 5), (300, 5))
    for cores in (2, 8, 32):
        rates = [f"{most_a_second(cores, body_kb=kb, handler_cpu_ms=ms):,.0f}" for kb, ms in kinds]
        assert f"| {cores} | {' | '.join(rates)} |" in DOCS
    for kb in (3, 30, 300):
        gigabytes = (ROW_BYTES + ROW_BYTES_A_BYTE * kb * 1_000) * 1e6 / 1e9
        told = re.search(rf"^\| {kb} KB \| ([\d.]+) GB \|$", DOCS, re.MULTILINE)
        assert told is not None
        assert float(told[1]) == pytest.approx(gigabytes, abs=0.06)


def measured(*headings: str, row: str) -> dict[str, float]:
    """Processor milliseconds of an email in the first table of docs/benchmarks.md after these
    headings, by what used them."""
    rest = BENCHMARKS
    for heading in headings:
        _, found, rest = rest.partition(f"\n{heading}\n")
        assert found, heading
    table = rest[rest.index("\n|") + 1 :].partition("\n\n")[0]
    names, _, *rows = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
    (values,) = (values for values in rows if values[1] == row)
    return {
        name.partition(" CPU")[0]: float(value)
        for name, value in zip(names, values, strict=True)
        if name.endswith("CPU s / 1,000")
    }


@pytest.mark.parametrize("kb", [1, 30, 300])
def test_an_email_costs_what_the_benchmarks_measured(kb: int) -> None:
    intake = measured("## Intake", f"### Bodies of {kb} KB", "32 connections:", row="Mailroom")
    job = measured("## Jobs", "### A handler that does nothing", row="Mailroom over PostgreSQL")
    web, worker, _ = cpu_ms(kb)
    for said, found in (
        (web, intake["web"]),
        (INTAKE_MS + INTAKE_MS_A_KB * kb, intake["PostgreSQL"]),
        (worker, job["worker"]),
        (JOB_MS, job["PostgreSQL"]),
    ):
        assert found / FITS_WITHIN <= said <= found * FITS_WITHIN, (kb, said, found)


@pytest.mark.parametrize(
    "command",
    [
        *(
            ["size", "--emails-per-day", "9", name]
            for name in ("--handler-ms", "--keep-days", "--peak")
        ),
        *(["drill", "--dry-run", name] for name in ("--rate", "--seconds", "--patience")),
        ["reconcile", "--overdue-after"],
        ["attachments", "gc", "--older-than"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("number", ["inf", "nan", "-inf", "1e300"])
def test_a_number_that_cannot_be_counted_with_is_refused_by_name(
    command: list[str], number: str
) -> None:
    refused = CliRunner().invoke(main, [*command, number])
    assert refused.exit_code == 2, refused.output
    assert f"Invalid value for '{command[-1]}'" in refused.output


def test_the_command_prints_it_and_refuses_what_makes_no_sense() -> None:
    printed = CliRunner().invoke(size, ["--emails-per-day", "10000"])
    assert printed.exit_code == 0
    assert "111.3 GB" in printed.output
    for wrong in (["--emails-per-day", "0"], ["--emails-per-day", "1", "--peak", "0.5"], []):
        assert CliRunner().invoke(size, wrong).exit_code == 2
