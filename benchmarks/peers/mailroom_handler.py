"""Mailroom: what MAILROOM_HANDLER names."""

from app.models.incoming_email import IncomingEmail
from benchmarks.handlers import work


async def handle(email: IncomingEmail) -> None:
    """Do the work of the benchmark."""
    await work(int(email.zendesk_ticket_id))
