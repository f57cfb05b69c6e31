"""One run of a handler on one email, to the JSON that is stored of it. Whoever runs one does it by
this: the worker, `mailroom handler run`, and tests of handlers."""

import inspect
from collections.abc import Mapping
from typing import Any

from app.handlers.context import Context
from app.handlers.loading import Handler
from app.handlers.seam import Email, PermanentFailure
from app.models.fit import fit_optional_text, to_fit_json
from app.models.incoming_email import REPAIRED, UNREADABLE


async def run(handler: Handler, email: Email, context: Context) -> str | None:
    """Have a handler process an email, unless nobody can read it.

    Returns:
        The JSON text of its result; what was mended of the payload is kept in it.

    Raises:
        PermanentFailure: as `result_to_json`, or the email cannot be read, or what the handler set
            in `cleaned_body` is no text.
        Exception: what the handler raised.
    """
    stored: dict[str, Any] = email.extracted_data if isinstance(email.extracted_data, dict) else {}
    if UNREADABLE in stored:
        raise PermanentFailure(str(stored[UNREADABLE]))
    kept = {REPAIRED: stored[REPAIRED]} if REPAIRED in stored else {}
    try:
        result = await handler(email, context)
    except (SystemExit, KeyboardInterrupt) as error:
        # They would end the event loop, and every other handler with it.
        raise RuntimeError(f"the handler raised {error!r}") from error
    if kept and (result is None or isinstance(result, Mapping)):
        result = {**kept, **(result or {})}
    text = result_to_json(result)
    try:
        email.cleaned_body = fit_optional_text(email.cleaned_body)
    except TypeError as error:
        raise PermanentFailure(f"the handler set email.cleaned_body: it {error}") from error
    return text


def result_to_json(result: object) -> str | None:
    """The JSON text of what a handler returned.

    Raises:
        PermanentFailure: it is neither a mapping nor None, or holds what JSON cannot.
    """
    if result is None:
        return None
    if not isinstance(result, Mapping):
        mend = ": write `async def`, or await it" if inspect.isawaitable(result) else ""
        raise PermanentFailure(
            f"the handler returned {type(result).__name__}: it has to return a mapping or None"
            f"{mend}"
        )
    try:
        return to_fit_json(dict(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentFailure(f"the handler returned what is not JSON: {error}") from error
