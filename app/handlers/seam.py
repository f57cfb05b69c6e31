"""What whoever writes a handler imports: the email, its surroundings, and how to say how it went.

A handler is a function, named by MAILROOM_HANDLER:

    async def handle(email: Email, context: Context) -> Mapping | None

The second parameter may be left out. What it returns is stored in `extracted_data`; what it sets in
`email.cleaned_body` is stored too. It runs at least once for each email: use `email.id` as the key
of what it does elsewhere. docs/handlers.md tells the whole of it.
"""

from datetime import timedelta

from app.attachments.given import Attachment, Attachments
from app.database.engine import DB
from app.handlers.context import Context
from app.models.incoming_email import IncomingEmail

__all__ = ["Attachment", "Attachments", "Context", "Email", "PermanentFailure", "Retry"]


class Email(IncomingEmail, tablename="incoming_emails", db=DB):
    """An email as its handler sees it: the columns of the table as they were when it was claimed.

    Only `cleaned_body` is the handler's to set.
    """

    attachments: Attachments = Attachments.of(())


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
