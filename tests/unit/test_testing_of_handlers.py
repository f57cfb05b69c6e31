"""What `app.testing` tells of a handler is what a worker would record."""

import asyncio
import threading
import time
from typing import Any

import httpx2
import pytest
from support import WAIT_SECONDS

from app.attachments.given import NotKeptError
from app.handlers.context import Context
from app.handlers.loading import HandlerLoadError
from app.handlers.seam import Email, PermanentFailure, Retry
from app.outbound.errors import HostNotAllowedError
from app.testing import File, NotKept, make_email, run_handler, run_handler_async


async def describe(email: Email, context: Context) -> dict[str, Any]:
    context.progress("reads the files")
    email.cleaned_body = (email.raw_body_text or "").strip()
    return {
        "subject": email.subject,
        "attempt": context.attempt,
        "files": {
            file.safe_name: file.why or len(await file.read()) async for file in email.attachments
        },
    }


def test_an_email_with_files_is_handled() -> None:
    email = make_email(
        subject="Order 4711",
        raw_body_text=" Hello ",
        attachments=[
            File("order.pdf", b"%PDF-1.7", "application/pdf"),
            NotKept("huge.zip", "too_large"),
        ],
    )
    run = run_handler(describe, email, attempt=2)
    data = run.data()
    assert data["subject"] == "Order 4711"
    assert data["attempt"] == 2
    assert data["files"]["order.pdf"] == 8
    assert "MAILROOM_ATTACHMENT_MAX_BYTES" in data["files"]["huge.zip"]
    assert run.cleaned_body == "Hello"
    assert run.progress == ["reads the files"]
    assert run.outcome == "completed"
    with pytest.raises(AssertionError, match="completed"):
        run.error()


def test_a_handler_that_is_not_async_is_run_as_well() -> None:
    def handle(email: Email, context: Context) -> dict[str, Any]:
        context.progress("in a thread")
        (file,) = context.run(email.attachments.kept())
        return {"content": context.run(file.read()).decode()}

    run = run_handler(handle, make_email(attachments=[File(None, b"Hallo")]))
    assert run.data() == {"content": "Hallo"}
    assert run.progress == ["in a thread"]


async def test_a_test_that_is_async_awaits() -> None:
    async def handle(email: Email) -> None: ...

    assert (await run_handler_async(handle, make_email())).data() is None


def test_each_way_to_fail_is_told_as_a_worker_would() -> None:
    async def busy(email: Email) -> None:
        raise Retry("the CRM is busy", after=7)

    async def broken(email: Email) -> None:
        raise ConnectionError("the CRM is away")

    async def hopeless(email: Email) -> None:
        raise PermanentFailure("no text")

    async def returns_a_list(email: Email) -> Any:
        return [1]

    run = run_handler(busy, make_email())
    assert (run.outcome, run.retry_after(), run.error()) == ("retried", 7.0, "the CRM is busy")
    run = run_handler(broken, make_email())
    assert 10 < run.retry_after() < 20
    assert run.error() == "ConnectionError: the CRM is away"
    last = run_handler(broken, make_email(), attempt=6)
    assert last.failure() == "ConnectionError: the CRM is away"
    assert run_handler(hopeless, make_email()).failure() == "no text"
    assert "has to return a mapping" in run_handler(returns_a_list, make_email()).failure()
    with pytest.raises(AssertionError, match="would be failed, not completed: no text") as told:
        run_handler(hopeless, make_email()).data()
    assert isinstance(told.value.__cause__, PermanentFailure)
    with pytest.raises(AssertionError, match="would be failed, not retried"):
        run_handler(hopeless, make_email()).retry_after()


def test_a_handler_over_its_time_is_told() -> None:
    async def slow(email: Email) -> None:
        await asyncio.Event().wait()

    def in_a_thread(email: Email, context: Context) -> None:
        while not context.is_cancelled:
            time.sleep(0.001)
        raise RuntimeError("cancelled")

    for handler in (slow, in_a_thread):
        run = run_handler(handler, make_email(), seconds=0.05)
        assert run.error() == "the handler did not finish within 0.05 seconds"


def test_requests_are_answered_by_a_transport_and_reach_nobody_else() -> None:
    async def handle(email: Email, context: Context) -> dict[str, Any]:
        answer = await context.http.post("https://crm.example.com/cases", json={"a": 1})
        return {"status": answer.status_code, "dry": context.is_dry_run}

    answering = httpx2.MockTransport(lambda request: httpx2.Response(201))
    assert run_handler(handle, make_email(), transport=answering).data() == {
        "status": 201,
        "dry": False,
    }
    dry = run_handler(handle, make_email(), transport=answering, is_dry_run=True)
    assert "would send POST to crm.example.com" in dry.error()
    alone = run_handler(handle, make_email())
    assert alone.error().startswith(HostNotAllowedError.__name__)
    assert "give run_handler a transport" in alone.error()


def test_what_is_wrong_in_a_test_is_named() -> None:
    async def handle(email: Email) -> None:
        async for file in email.attachments:
            file.open()

    with pytest.raises(ValueError, match="sender"):
        make_email(sender="erika@example.com")
    with pytest.raises(HandlerLoadError, match="takes"):
        run_handler(lambda: None, make_email())
    run = run_handler(handle, make_email(attachments=[NotKept("a.pdf")]))
    assert run.error().startswith(NotKeptError.__name__)


def test_a_handler_that_hangs_in_its_thread_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.jobs.trial.CANCEL_SECONDS", 0.05)
    is_over, has_ended = threading.Event(), threading.Event()

    def handle(email: Email) -> None:
        is_over.wait(WAIT_SECONDS)
        has_ended.set()

    run = run_handler(handle, make_email(), seconds=0.05)
    assert not has_ended.is_set()
    assert run.error() == "the handler did not finish within 0.05 seconds"
    # Nor does it disturb anybody when it ends.
    is_over.set()
    assert has_ended.wait(WAIT_SECONDS)
