"""What `mailroom worker` turns into once it knows what to run: the supervisor alone, in a third of
the memory that the settings and the command line take.

    python -m app.cli.supervise STOP_SECONDS PART
"""

import contextlib
import importlib
import json
import os
import sys
from typing import Any, NoReturn

import attrs

from app.cli.processes import Part, Supervisor
from app.errors import MailroomError


def turn_into_supervisor(part: Part, *, stop_seconds: float) -> NoReturn:
    """Go on as the supervisor of a part that needs no open files: the same process, another
    program. What was printed is to be flushed before."""
    told = [str(stop_seconds), json.dumps(attrs.asdict(part))]
    os.execv(sys.executable, [sys.executable, "-m", "app.cli.supervise", *told])  # noqa: S606 - of ours


def main() -> None:
    """Keep the part running that the arguments describe."""
    stop_seconds, part = sys.argv[1:]
    supervisor = Supervisor(
        [Part(**json.loads(part))], stop_seconds=float(stop_seconds), tell=_tell
    )
    raise SystemExit(supervisor.run())


def _tell(event: str, **values: Any) -> None:
    # Loaded when there is something to tell: mostly there is nothing.
    logs = importlib.import_module("app.telemetry.logs")
    logs.configure_default_logging()
    # Settings that were made unusable meanwhile are mended before long: the part starts again then.
    with contextlib.suppress(MailroomError):
        logs.configure_logging(importlib.import_module("app.settings").get_settings())
    importlib.import_module("structlog").get_logger(__name__).error(event, **values)


if __name__ == "__main__":
    main()
