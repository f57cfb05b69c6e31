"""From the path in MAILROOM_HANDLER to something that can be awaited with an email and its context,
whatever shape of function stands there."""

import asyncio
import contextlib
import contextvars
import functools
import importlib
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

from app.errors import MailroomError
from app.handlers.context import Context
from app.handlers.seam import Email

Handler: TypeAlias = Callable[[Email, Context], Awaitable[Any]]

CONTEXT = "context"
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
SHAPES = (
    "`async def {name}(email)` or `async def {name}(email, context)`, or the same without async"
)


class HandlerLoadError(MailroomError):
    """The handler that MAILROOM_HANDLER names cannot be used."""


def load_handler(path: str, *, threads: int | None) -> Handler:
    """Import the handler that a dotted path such as `package.module:function` names.

    Args:
        threads: how many calls of it may run at once where it is no async function. None: it is
            only tried, and a thread that does not end is left behind.

    Raises:
        HandlerLoadError: its module fails to import, has no such function, or it takes other
            arguments than a handler gets.
    """
    function = import_function(path, setting="MAILROOM_HANDLER")
    try:
        return as_handler(function, threads=threads)
    except HandlerLoadError as error:
        raise HandlerLoadError(f"MAILROOM_HANDLER: {path} {error}") from error


def import_function(path: str, *, setting: str) -> Callable[..., Any]:
    """Import what a setting names as `package.module:function`.

    Raises:
        HandlerLoadError: its module fails to import, or has no such function.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise HandlerLoadError(f"{setting} is {path!r}: it has to be `package.module:function`")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise HandlerLoadError(
            f"{setting}: the module {module_name} fails to import "
            f"({type(error).__name__}: {error}): mend it, or see that it is installed where "
            "the workers run"
        ) from error
    function: Callable[..., Any] | None = getattr(module, name, None)
    if function is None:
        raise HandlerLoadError(f"{setting}: the module {module_name} has no {name}")
    return function


def as_handler(function: Callable[..., Any], *, threads: int | None) -> Handler:
    """What awaits a function with the arguments that it takes, in a thread if it is not async;
    `threads` as `load_handler` has it.

    Raises:
        HandlerLoadError: no handler can be made of it; the message says what it is.
    """
    shapes = SHAPES.format(name=getattr(function, "__name__", "handle"))
    if (
        not callable(function)
        or inspect.isclass(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise HandlerLoadError(f"is not a function that a handler can be: write {shapes}")
    bind = _binding(function, shapes)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - of an object that can be called
    ):

        async def call(email: Email, context: Context) -> Any:
            return await bind(email, context)()

    elif threads is None:

        async def call(email: Email, context: Context) -> Any:
            return await _in_thread_of_its_own(bind(email, context), context)

    else:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="handler")

        async def call(email: Email, context: Context) -> Any:
            return await _in_thread(pool, bind(email, context), context)

    return functools.wraps(function, updated=())(call)


def _binding(
    function: Callable[..., Any], shapes: str
) -> Callable[[Email, Context], Callable[[], Any]]:
    """What makes a call without arguments of it. A second parameter that has a default and is not
    called `context` is the handler's own."""
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise HandlerLoadError(f"does not tell what arguments it takes: write {shapes}") from error
    others = list(signature.parameters.values())[1:]
    by_name = any(p.name == CONTEXT and p.kind in NAMED for p in others)
    by_position = not by_name and any(
        p.kind in POSITIONAL and p.default is p.empty for p in others[:1]
    )
    try:
        signature.bind(*[None] * (1 + by_position), **({CONTEXT: None} if by_name else {}))
    except TypeError as error:
        raise HandlerLoadError(
            f"takes {signature}, and a handler is called with an email, and a context if it wants "
            f"one: write {shapes}"
        ) from error
    if by_name:
        return lambda email, context: functools.partial(function, email, context=context)
    if by_position:
        return lambda email, context: functools.partial(function, email, context)
    return lambda email, _: functools.partial(function, email)


async def _in_thread(pool: ThreadPoolExecutor, work: Callable[[], Any], context: Context) -> Any:
    """Do work in a thread, with the context of logs and traces. A thread cannot be cancelled: who
    cancels this waits until it has ended, so that no other worker runs the handler beside it."""
    running = pool.submit(contextvars.copy_context().run, _without_stop_iteration, work)
    ended = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if running.cancel():
            raise  # it has not begun
        while not ended.done():
            context.cancel_awaited()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({ended})
        if ended.cancelled() or ended.exception() is not None:
            raise
        return ended.result()


async def _in_thread_of_its_own(work: Callable[[], Any], context: Context) -> Any:
    """The same for a handler that is only tried: who cancels this twice waits no longer. The thread
    is left behind, and ends with the process at the latest."""
    running: Future[Any] = Future()
    running.set_running_or_notify_cancel()

    def do() -> None:
        try:
            result = _without_stop_iteration(work)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            running.set_exception(error)
        else:
            running.set_result(result)

    copied = contextvars.copy_context()
    threading.Thread(target=copied.run, args=(do,), name="handler", daemon=True).start()
    ended = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        context.cancel_awaited()
        try:
            await asyncio.wait({ended})
        except asyncio.CancelledError:
            ended.cancel()
        if ended.cancelled() or ended.exception() is not None:
            raise
        return ended.result()


def _without_stop_iteration(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except StopIteration as error:
        # No future takes it: whoever awaits one would wait for ever.
        raise RuntimeError("the handler raised StopIteration") from error
