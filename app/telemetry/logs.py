"""Structured logs: JSON in production, readable in development; ids only, never email content.

An exception is logged as its type and where it was raised. Its message is left out, and those of
what caused it, too: databases, parsers and handlers quote the values that they stumbled over.
"""

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from app.settings import Settings

WITH_VALUES = ("exc_value", "exc_notes", "syntax_error")

# What handlers call others with. They log each URL, and in it may be whose email this is.
HTTP_CLIENTS = (
    *("aiohttp", "botocore", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"),
)


def configure_logging(settings: Settings) -> None:
    """Send structlog's and the standard library's records through one formatter to stderr."""
    # Loggers remember it: what is below the level costs nothing, and email comes past such lines.
    _configure(settings.log_level, as_json=settings.is_production, is_for_good=True)


def configure_default_logging() -> None:
    """The same where no settings are read, or not yet: warnings and errors, for people to read.

    `configure_logging` may take its place at any time.
    """
    _configure("warning", as_json=False, is_for_good=False)


def _configure(level: str, *, as_json: bool, is_for_good: bool) -> None:
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = (
        [
            structlog.processors.ExceptionRenderer(_without_values),
            structlog.processors.JSONRenderer(),
        ]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=_write_without_values
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _leave_out_values],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # uvicorn has set up its own by now, unless it was told not to.
    uvicorn = logging.getLogger("uvicorn")
    uvicorn.handlers, uvicorn.propagate = [], True
    # Its lines hold the query, where the API's filters name addresses.
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False
    for client in HTTP_CLIENTS:
        logging.getLogger(client).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=is_for_good,
    )


_transform = ExceptionDictTransformer(show_locals=False)


def is_told(times: int) -> bool:
    """Whether what happened for the 1st, 2nd, 4th, 8th ... time is logged: a flood of it must not
    fill the log."""
    return times & (times - 1) == 0


def _without_values(exc_info: ExcInfo) -> list[dict[str, Any]]:
    return _strip(_transform(exc_info))


def _strip(stacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in stack.items() if name not in WITH_VALUES}
        | {"exceptions": [_strip(member) for member in stack["exceptions"]]}
        for stack in stacks
    ]


def _write_without_values(stream: TextIO, exc_info: ExcInfo) -> None:
    _write(stream, _without_values(exc_info))


def _write(stream: TextIO, stacks: list[dict[str, Any]]) -> None:
    for stack in reversed(stacks):
        for member in stack["exceptions"]:
            _write(stream, member)
        for frame in stack["frames"]:
            stream.write(
                f'\n  File "{frame["filename"]}", line {frame["lineno"]}, in {frame["name"]}'
            )
        stream.write(f"\n{stack['exc_type']}")


def _leave_out_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Of what libraries say the part that holds no values of ours."""
    library = str(event.get("logger")).partition(".")[0]
    if library == "asyncio":
        # The first line tells of a forgotten task; the others show its exception.
        event["event"] = str(event["event"]).partition("\n")[0]
    elif library in HTTP_CLIENTS:
        event["event"] = event["_record"].msg
    return event
