"""`mailroom worker`."""

import sys

import click

from app.cli.printing import flush
from app.cli.processes import Part
from app.cli.supervise import turn_into_supervisor
from app.jobs.broker_url import broker_scheme
from app.settings import Settings, environment_name, get_settings


def worker_part(settings: Settings, *, processes: int, concurrency: int) -> Part:
    """The `dramatiq` command that runs the workers."""
    return Part(
        "worker",
        [
            *(sys.executable, "-m", "dramatiq", "app.worker"),
            *("--processes", str(processes)),
            *("--queues", settings.queue),
            *("--worker-shutdown-timeout", str(int(settings.worker_shutdown_seconds * 1000))),
            "--skip-logging",
        ],
        environment={environment_name("worker_concurrency"): str(concurrency)},
    )


@click.command()
@click.option("--processes", type=click.IntRange(min=1), help="[default: the setting]")
@click.option(
    *("--concurrency", "--threads", "concurrency"),
    type=click.IntRange(min=1),
    help="Emails that each process handles at once. [default: the setting]",
)
def worker(processes: int | None, concurrency: int | None) -> None:
    """Run workers, which process email.

    Wraps the `dramatiq` command and starts it again when it dies. Any number of workers on any
    number of machines share the work.
    """
    settings = get_settings()
    broker_scheme(settings)
    part = worker_part(
        settings,
        processes=processes or settings.worker_processes,
        concurrency=concurrency or settings.worker_concurrency,
    )
    flush()
    turn_into_supervisor(part, stop_seconds=settings.worker_shutdown_seconds)
