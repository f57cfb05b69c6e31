"""All who take part in the benchmark of jobs, in the order in which they take turns."""

import importlib
from collections.abc import Callable, Collection
from typing import Any

from benchmarks.contenders.contender import Contender
from benchmarks.servers import Servers

# The module and class, and with what it is made. The modules are imported when they are asked for,
# since each needs packages that may not be installed.
_ALL: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "mailroom-postgresql": ("mailroom", "Mailroom", ()),
    "mailroom-redis": ("mailroom", "Mailroom", ("redis",)),
    "mailroom-rabbitmq": ("mailroom", "Mailroom", ("rabbitmq",)),
    "pgqueuer-100": ("pgqueuer", "PgQueuer", (100,)),
    "pgqueuer-10": ("pgqueuer", "PgQueuer", (10,)),
    "pgqueuer-same-work-100": ("pgqueuer", "PgQueuerSameWork", (100,)),
    "pgqueuer-same-work-10": ("pgqueuer", "PgQueuerSameWork", (10,)),
    "procrastinate": ("procrastinate", "Procrastinate", ()),
    "celery-redis": ("celery", "Celery", ("redis",)),
    "celery-rabbitmq": ("celery", "Celery", ("rabbitmq",)),
    "dramatiq-redis": ("dramatiq", "Dramatiq", ("redis",)),
    "dramatiq-rabbitmq": ("dramatiq", "Dramatiq", ("rabbitmq",)),
    "original-design": ("original", "OriginalDesign", ()),
}
NAMES = tuple(_ALL)


def make_contenders(
    servers: Servers, names: Collection[str], leave_out: Callable[[str, str], None]
) -> list[Contender]:
    """Make those of these names that can take part; `leave_out` is told name and reason of the
    others."""
    made = []
    for name in NAMES:
        if name not in names:
            continue
        module, kind, arguments = _ALL[name]
        try:
            loaded = importlib.import_module(f"benchmarks.contenders.{module}")
        except ModuleNotFoundError as error:
            leave_out(name, f"{error.name} is not installed: pip install 'mailroom[benchmarks]'")
            continue
        contender: Contender = getattr(loaded, kind)(servers, *arguments)
        if reason := contender.why_left_out():
            leave_out(name, reason)
        else:
            made.append(contender)
    return made
