"""The seam where "processing" gets its meaning: what a handler is, and how it says how it went.

A handler is a plain async function, named by MAILROOM_HANDLER:

    async def handle(email: IncomingEmail) -> Mapping | None

What it returns is stored in `extracted_data`; what it sets in `email.cleaned_body` is stored too.
It runs at least once for each email: use `email.id` as the key of what it does elsewhere.
"""

import importlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from app.errors import MailroomError
from app.models.fit import to_fit_json
from app.models.incoming_email import REPAIRED, UNREADABLE, IncomingEmail

Handler: TypeAlias = Callable[[IncomingEmail], Awaitable[Mapping[str, Any] | None]]


class HandlerLoadError(MailroomError):
    """The handler that MAILROOM_HANDLER names cannot be used."""


class Retry(Exception):  # noqa: N818 - raised by handlers, it reads as what it asks for
    """Try this email again.

    Args:
        after: pause in seconds, or a timedelta; None leaves it to the configured backoff.
        reason: kept with the attempt.
    """

    def __init__(
        self,
        reason: str = "the handler asked for a retry",
        *,
        after: float | timedelta | None = None,
    ) -> None:
        super().__init__(reason)
        if after is not None and not isinstance(after, int | float | timedelta):
            raise TypeError(f"Retry: `after` has to be seconds or a timedelta, not {after!r}")
        self.after = timedelta(seconds=after) if isinstance(after, int | float) else after


class PermanentFailure(Exception):  # noqa: N818 - as above
    """This email can never be processed: fail it at once, without retries."""


def load_handler(path: str) -> Handler:
    """Import the handler that a dotted path such as `package.module:function` names.

    Raises:
        HandlerLoadError: its module fails to import, has no such function, or it is not async.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise HandlerLoadError(
            f"MAILROOM_HANDLER is {path!r}: it has to be `package.module:function`"
        )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise HandlerLoadError(
            f"MAILROOM_HANDLER: the module {module_name} fails to import "
            f"({type(error).__name__}: {error}): mend it, or see that it is installed where "
            "the workers run"
        ) from error
    handler = getattr(module, name, None)
    if handler is None:
        raise HandlerLoadError(f"MAILROOM_HANDLER: the module {module_name} has no {name}")
    if not inspect.iscoroutinefunction(handler):
        raise HandlerLoadError(
            f"MAILROOM_HANDLER: {path} is not an async function: write `async def {name}(email)`"
        )
    loaded: Handler = handler
    return loaded


async def run(handler: Handler, email: IncomingEmail) -> str | None:
    """Have a handler process an email, unless nobody can read it.

    Returns:
        The JSON text of its result; what was mended of the payload is kept in it.

    Raises:
        PermanentFailure: as `result_to_json`, or the email cannot be read.
    """
    stored: dict[str, Any] = email.extracted_data if isinstance(email.extracted_data, dict) else {}
    if UNREADABLE in stored:
        raise PermanentFailure(str(stored[UNREADABLE]))
    kept = {REPAIRED: stored[REPAIRED]} if REPAIRED in stored else {}
    result = await handler(email)
    if kept and (result is None or isinstance(result, Mapping)):
        result = {**kept, **(result or {})}
    return result_to_json(result)


def result_to_json(result: object) -> str | None:
    """The JSON text of what a handler returned.

    Raises:
        PermanentFailure: it is neither a mapping nor None, or holds what JSON cannot.
    """
    if result is None:
        return None
    if not isinstance(result, Mapping):
        raise PermanentFailure(
            f"the handler returned {type(result).__name__}: it has to return a mapping or None"
        )
    try:
        return to_fit_json(dict(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentFailure(f"the handler returned what is not JSON: {error}") from error
