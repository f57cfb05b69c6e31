"""Which functions are handlers, and what is said of the others."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from httpx2 import AsyncClient

from app.handlers import extract_text
from app.handlers.context import Context, InEventLoopError
from app.handlers.loading import HandlerLoadError, as_handler, load_handler
from app.handlers.seam import Email


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write_module(folder: Path, source: str) -> str:
    name = f"handler_{uuid4().hex}"
    (folder / f"{name}.py").write_text(source)
    return name


def make_context(tell: Callable[[str], None] = lambda _: None) -> Context:
    return Context(email_id=uuid4(), attempt=2, seconds=60, tell=tell, client=AsyncClient)


async def call(function: Callable[..., Any]) -> Any:
    """What a function returns as a handler."""
    return await as_handler(function, threads=2)(Email(subject="Hallo"), make_context())


@pytest.mark.parametrize("path", ["", ":", "module", "module.function", ":handle", "module:"])
def test_a_path_without_module_or_function_is_explained(path: str) -> None:
    with pytest.raises(HandlerLoadError, match=r"has to be `package\.module:function`") as error:
        load_handler(path, threads=1)
    assert repr(path) in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        ("import no_such_module_of_anyone", "No module named 'no_such_module_of_anyone'"),
        ("def handle(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_module_that_fails_to_import_is_named_with_its_error(
    folder: Path, source: str, said: str
) -> None:
    name = write_module(folder, source)
    with pytest.raises(HandlerLoadError, match="fails to import") as error:
        load_handler(f"{name}:handle", threads=1)
    assert name in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("path", ["no_such_module_of_anyone:handle", "..relative:handle"])
def test_a_module_that_does_not_exist_is_named(path: str) -> None:
    with pytest.raises(HandlerLoadError, match=r"fails to import .* see that it is installed"):
        load_handler(path, threads=1)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "has no handle"),
        ("handle = None", "has no handle"),
        ("handle = 5", "is not a function"),
        ("class handle:\n    async def __call__(self, email): ...", "is not a function"),
        ("async def handle(email): yield", "is not a function"),
        ("def handle(email): yield", "is not a function"),
        ("async def handle(): ...", "takes (), and a handler"),
        ("async def handle(email, context, crm): ...", "takes (email, context, crm)"),
        ("async def handle(email, *, crm): ...", "takes (email, *, crm)"),
        ("def handle(*, email): ...", "takes (*, email)"),
    ],
)
def test_what_is_no_handler_is_explained(folder: Path, source: str, said: str) -> None:
    name = write_module(folder, source)
    with pytest.raises(HandlerLoadError) as error:
        load_handler(f"{name}:handle", threads=1)
    assert said in str(error.value)
    assert name in str(error.value)
    if said != "has no handle":
        assert "write `async def handle(email)` or `async def handle(email, context)`" in str(
            error.value
        )


async def test_a_good_handler_is_loaded(folder: Path) -> None:
    name = write_module(folder, "async def handle(email): return {'x': 1}")
    handler = load_handler(f"{name}:handle", threads=1)
    assert await handler(Email(), make_context()) == {"x": 1}
    built_in = load_handler("app.handlers.extract_text:handle", threads=1)
    assert built_in.__wrapped__ is extract_text.handle  # type: ignore[attr-defined]


async def test_a_context_is_given_to_whoever_takes_one() -> None:
    async def alone(email: Any) -> Any:
        return email.subject, None

    async def old(email: Any, crm: str = "its own") -> Any:
        return email.subject, crm

    async def any_number(*arguments: Any) -> Any:
        return len(arguments)

    async def second(email: Any, surroundings: Any) -> Any:
        return email.subject, surroundings.attempt

    async def by_default(email: Any, context: Any = None) -> Any:
        return email.subject, context.attempt

    async def by_name(email: Any, *, crm: str = "", context: Any) -> Any:
        return email.subject, context.attempt

    async def third(email: Any, crm: str = "", context: Any = None) -> Any:
        return email.subject, context.attempt

    def in_a_thread(email: Any, context: Any) -> Any:
        return email.subject, context.attempt

    class Callable:
        async def __call__(self, email: Any, context: Any) -> Any:
            return email.subject, context.attempt

    assert await call(alone) == ("Hallo", None)
    assert await call(old) == ("Hallo", "its own")
    assert await call(any_number) == 1
    for handler in (second, by_default, by_name, third, in_a_thread, Callable()):
        assert await call(handler) == ("Hallo", 2)


async def test_what_is_not_async_runs_in_a_thread_with_the_context_of_the_logs() -> None:
    seen: dict[str, Any] = {}

    def handle(email: Any) -> dict[str, Any]:
        seen["thread"] = threading.current_thread()
        seen["logged"] = structlog.contextvars.get_contextvars()
        return {"subject": email.subject}

    with structlog.contextvars.bound_contextvars(email_id="4711"):
        assert await call(handle) == {"subject": "Hallo"}
    assert seen["thread"] is not threading.current_thread()
    assert seen["logged"] == {"email_id": "4711"}


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(3), ValueError("wrong")])
async def test_what_is_raised_in_a_thread_is_raised_to_whoever_waits(error: BaseException) -> None:
    def handle(email: Any) -> None:
        raise error

    with pytest.raises((RuntimeError, SystemExit, ValueError)):
        await call(handle)


async def test_who_cancels_a_handler_in_a_thread_waits_until_it_has_ended() -> None:
    began, may_end = threading.Event(), threading.Event()
    seen: list[bool] = []

    def handle(email: Any, context: Context) -> None:
        seen.append(context.is_cancelled)
        began.set()
        assert may_end.wait(60)
        seen.append(context.is_cancelled)
        raise RuntimeError("it was told to end")

    running = asyncio.create_task(call(handle))
    await asyncio.to_thread(began.wait, 60)
    running.cancel()
    # Those who stop a worker may well ask twice.
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=0.05)
    assert not running.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == [False, True]


async def test_what_a_cancelled_thread_finishes_counts() -> None:
    began = threading.Event()

    def handle(email: Any, context: Context) -> str:
        began.set()
        while not context.is_cancelled:
            pass
        return "done in the last moment"

    running = asyncio.create_task(call(handle))
    await asyncio.to_thread(began.wait, 60)
    running.cancel()
    assert await running == "done in the last moment"


async def test_what_a_thread_waits_for_in_the_event_loop_is_cancelled_with_it() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def answer() -> int:
        return 42

    def handle(email: Any, context: Context) -> None:
        assert context.run(answer()) == 42
        context.run(wait_for_ever())

    running = asyncio.create_task(call(handle))
    await began.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert cancelled.is_set()


async def test_an_async_handler_is_told_to_await_in_place_of_blocking_all() -> None:
    async def answer() -> int:
        return 42

    with pytest.raises(InEventLoopError, match="write `await`"):
        make_context().run(answer())


async def test_progress_is_a_line_that_threads_tell_too() -> None:
    told: list[str] = []
    context = make_context(told.append)
    context.progress("  looked up\n the contract\x00 ")
    context.progress("\n")
    await asyncio.to_thread(context.progress, "x" * 1_000)
    await asyncio.sleep(0)
    assert told == ["looked up the contract", "x" * 200]


async def test_the_time_that_is_left_is_told() -> None:
    context = make_context()
    assert 0 < context.seconds_left <= 60
    late = Context(email_id=uuid4(), attempt=1, seconds=0, tell=print, client=AsyncClient)
    assert late.seconds_left == 0
    assert late.deadline < context.deadline


async def test_a_thread_that_was_cancelled_gets_nothing_awaited_any_more() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    def wait() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            context.run(wait_for_ever())

    context = make_context()
    context.cancel_awaited()
    await asyncio.to_thread(wait)
