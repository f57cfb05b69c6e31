"""Who wrote an email that came as an event: events name a user's id and no address, so Zendesk is
asked before the handler runs."""

import functools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg
import structlog

from app.handlers.context import Context
from app.handlers.loading import Handler
from app.handlers.seam import Email, Retry
from app.models.entries import noted
from app.models.incoming_email import IncomingEmail
from app.settings import Settings
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskAwayError, ZendeskError
from app.zendesk.users import User, Users

log = structlog.get_logger(__name__)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

LONGEST_ADDRESS = IncomingEmail.from_email.length
LONGEST_NAME = IncomingEmail.from_name.length

KEEP_SENDER = f"""
UPDATE incoming_emails
SET from_email = $2, from_name = COALESCE(from_name, $3), updated_at = now(),
    attempt_errors = {noted("'its sender was looked up at Zendesk'")}
WHERE id = $1 AND from_email = '' AND erased_at IS NULL
"""  # noqa: S608 - a constant
TELL = f"""
UPDATE incoming_emails
SET attempt_errors = {noted("$2::text")}
WHERE id = $1 AND NOT attempt_errors @> jsonb_build_array(jsonb_build_object('error', $2::text))
"""  # noqa: S608 - a constant


def with_senders(settings: Settings, handler: Handler, pool: Callable[[], Pool]) -> Handler:
    """A handler that is called with the sender's address, where Zendesk tells it.

    Whoever cannot be found stays empty, and the email's story says why.
    """
    senders = _Senders(settings, pool)

    @functools.wraps(handler)
    async def handle(email: Email, context: Context) -> Any:
        if email.from_email == "" and email.zendesk_account_id is not None:
            await senders.complete(email)
        return await handler(email, context)

    return handle


class _Senders:
    def __init__(self, settings: Settings, pool: Callable[[], Pool]) -> None:
        self._settings = settings
        self._pool = pool
        self._users: Users | None = None

    async def complete(self, email: IncomingEmail) -> None:
        """Fill in the sender.

        Raises:
            Retry: Zendesk is away or busy, and there are attempts left.
        """
        if not self._settings.zendesk_token:
            await self._tell(
                email,
                "its sender is not known: Zendesk's events name no address; with "
                "MAILROOM_ZENDESK_TOKEN set it is looked up",
            )
            return
        user_id = sender_id(email.raw_payload)
        try:
            user = await self._find(user_id) if user_id else None
        except ZendeskAwayError as error:
            if email.retry_count < self._settings.max_retries:
                pause = timedelta(seconds=getattr(error, "seconds", 0.0)) or None
                raise Retry(f"its sender was not looked up: {error}", after=pause) from error
            await self._tell(email, f"its sender is not known: {error}")
            return
        except ZendeskError as error:
            log.error("sender_not_looked_up", error=type(error).__name__)
            await self._tell(email, f"its sender is not known: {error}")
            return
        if user is None or user.email is None:
            await self._tell(email, "its sender is not known: Zendesk has no address of that user")
            return
        email.from_email = user.email[:LONGEST_ADDRESS]
        email.from_name = email.from_name or (user.name and user.name[:LONGEST_NAME])
        await self._pool().execute(
            KEEP_SENDER, email.id, email.from_email, user.name and user.name[:LONGEST_NAME]
        )

    async def _find(self, user_id: str) -> User | None:
        if self._users is None:
            # Made here, in the event loop that uses it.
            self._users = Users(ZendeskClient(self._settings))
        return await self._users.find(user_id)

    async def _tell(self, email: IncomingEmail, what: str) -> None:
        await self._pool().execute(TELL, email.id, what)


def sender_id(payload: Any) -> str | None:
    """The id of the user who wrote the email of an event; of a new ticket that is its requester."""
    if isinstance(payload, str):
        # What PostgreSQL takes only as a JSON string.
        try:
            payload = json.loads(payload, strict=False)
        except (ValueError, RecursionError):
            return None
    author = _get(payload, "event", "comment", "author", "id")
    found = author if author is not None else _get(payload, "detail", "requester_id")
    if isinstance(found, str | int) and not isinstance(found, bool):
        return str(found).strip() or None
    return None


def _get(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
