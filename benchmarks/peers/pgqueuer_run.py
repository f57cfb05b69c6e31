"""`pgq run` without its command line, which fails with the current typer (0.29): it passes the log
level on as a string. Event loop, supervisor and settings are those of the command."""

import argparse
from datetime import timedelta

import uvloop
from pgqueuer.adapters.cli import factories, supervisor
from pgqueuer.domain.types import QueueExecutionMode


def main() -> None:
    """Run one worker process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("factory")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--max-concurrent-tasks", type=int)
    arguments = parser.parse_args()
    uvloop.run(
        supervisor.run(
            factories.load_factory(arguments.factory),
            dequeue_timeout=timedelta(seconds=30),
            batch_size=arguments.batch_size,
            restart_delay=timedelta(seconds=5),
            restart_on_failure=False,
            shutdown_on_listener_failure=False,
            mode=QueueExecutionMode.continuous,
            max_concurrent_tasks=arguments.max_concurrent_tasks,
            heartbeat_timeout=timedelta(seconds=30),
        )
    )


if __name__ == "__main__":
    main()
