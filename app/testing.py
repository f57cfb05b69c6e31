"""For tests of handlers: make an email, run a handler on it, see what would be recorded. Neither a
server nor a database is needed, and nothing but this machine is called.

    def test_an_order_becomes_a_case() -> None:
        email = make_email(subject="Order 4711", attachments=[File("order.pdf", b"%PDF-1.7")])
        assert run_handler(handle, email).data() == {"order": 4711}
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import attrs
import httpx2

from app.attachments.given import Attachment, Attachments, in_memory
from app.attachments.reasons import Reason
from app.handlers.loading import as_handler
from app.handlers.seam import Email
from app.jobs.trial import Trial, TrialOutcome, try_handler
from app.models.email_attachment import AttachmentState
from app.outbound.for_handlers import make_client, with_transport
from app.outbound.rules import Rules
from app.setting_groups.group import LOOPBACK
from app.settings import get_settings

__all__ = ["File", "NotKept", "Run", "make_email", "run_handler", "run_handler_async"]

THIS_MACHINE = Rules(hosts=frozenset(LOOPBACK), opens_loopback=True)
MEND = "in a test, give run_handler a transport that answers in its place"


@attrs.frozen
class File:
    """A file of an email whose bytes are there."""

    filename: str | None
    content: bytes = attrs.field(repr=False)
    content_type: str = "application/octet-stream"
    is_inline: bool = False


@attrs.frozen
class NotKept:
    """A file that an email names, and of which there are no bytes."""

    filename: str | None
    reason: Reason | str = Reason.GONE
    state: AttachmentState = AttachmentState.FAILED


def make_email(*, attachments: Sequence[File | NotKept] = (), **columns: Any) -> Email:
    """An email as a handler gets it.

    Args:
        attachments: its files.
        columns: of the table `incoming_emails`, such as `subject` or `raw_body_text`, in place of
            the usual ones; those of JSON as objects.

    Raises:
        ValueError: there is no such column.
    """
    values: dict[str, Any] = {
        "id": uuid4(),
        "zendesk_ticket_id": "35436",
        "from_email": "erika@example.com",
        "from_name": "Erika Mustermann",
        "subject": "Wo bleibt mein Paket?",
        "raw_body_text": "Guten Tag,\nwo bleibt mein Paket?\n",
        "received_at": datetime.now(UTC),
        "attempt_errors": [],
        "attachment_urls": [
            {
                "url": f"https://example.zendesk.com/attachments/token/{number}",
                "filename": file.filename,
                "content_type": getattr(file, "content_type", None),
                "size": len(file.content) if isinstance(file, File) else None,
            }
            for number, file in enumerate(attachments)
        ]
        or None,
    }
    email = Email(**(values | columns))
    email.attachments = Attachments.of(
        [_attachment(position, file) for position, file in enumerate(attachments)]
    )
    return email


@attrs.frozen
class Run:
    """How a run of a handler ended."""

    trial: Trial

    @property
    def outcome(self) -> str:
        """`completed`, `retried` or `failed`."""
        return self.trial.outcome.value

    @property
    def progress(self) -> list[str]:
        """What was told by `context.progress`."""
        return self.trial.progress

    @property
    def cleaned_body(self) -> str | None:
        """What would be stored in `cleaned_body`."""
        return self.trial.cleaned_body

    def data(self) -> Any:
        """What would be stored in `extracted_data`.

        Raises:
            AssertionError: it is not completed; caused by what the handler raised.
        """
        self._expect(TrialOutcome.COMPLETED)
        return self.trial.extracted_data

    def retry_after(self) -> float:
        """The pause before the next attempt, in seconds.

        Raises:
            AssertionError: there is no further attempt.
        """
        self._expect(TrialOutcome.RETRIED)
        return self.trial.retry_after or 0.0

    def error(self) -> str:
        """What would stand in the email's story.

        Raises:
            AssertionError: it is completed.
        """
        if self.trial.error is None:
            raise AssertionError(f"the handler completed the email: {self.trial.extracted_data!r}")
        return self.trial.error

    def failure(self) -> str:
        """Why the email would be failed for good.

        Raises:
            AssertionError: it is completed, or tried again.
        """
        self._expect(TrialOutcome.FAILED)
        return self.error()

    def _expect(self, outcome: TrialOutcome) -> None:
        if self.trial.outcome is not outcome:
            said = self.trial.error or repr(self.trial.extracted_data)
            raise AssertionError(
                f"the email would be {self.outcome}, not {outcome}: {said}"
            ) from self.trial.exception


def run_handler(
    handler: Callable[..., Any],
    email: Email,
    *,
    attempt: int = 1,
    seconds: float = 60.0,
    is_dry_run: bool = False,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Run:
    """Run a handler on an email as a worker does. In a test that is async itself, await
    `run_handler_async`.

    Args:
        handler: as MAILROOM_HANDLER would name it; async or not, with a context or without.
        attempt: 1 is the first, 2 the first retry.
        seconds: what it may take.
        transport: what answers the requests of `context.http`, such as an `httpx2.MockTransport`.
            None: real servers on this machine, and no others.

    Raises:
        HandlerLoadError: it is no handler; the message says why.
    """
    return asyncio.run(
        run_handler_async(
            handler,
            email,
            attempt=attempt,
            seconds=seconds,
            is_dry_run=is_dry_run,
            transport=transport,
        )
    )


async def run_handler_async(
    handler: Callable[..., Any],
    email: Email,
    *,
    attempt: int = 1,
    seconds: float = 60.0,
    is_dry_run: bool = False,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Run:
    """As `run_handler`."""
    made = (
        with_transport(transport, is_dry_run=is_dry_run)
        if transport
        else make_client(THIS_MACHINE, mend=MEND, is_dry_run=is_dry_run)
    )
    async with made as client:
        trial = await try_handler(
            as_handler(handler, threads=None),
            email,
            get_settings(),
            client=lambda: client,
            attempt=attempt,
            seconds=seconds,
            is_dry_run=is_dry_run,
        )
    return Run(trial)


def _attachment(position: int, file: File | NotKept) -> Attachment:
    if isinstance(file, NotKept):
        return Attachment(
            position=position, filename=file.filename, state=file.state, reason=str(file.reason)
        )
    return in_memory(
        position,
        file.filename,
        file.content,
        content_type=file.content_type,
        is_inline=file.is_inline,
    )
