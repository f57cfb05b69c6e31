"""What all runs of handlers in one event loop share: their HTTP client, and the way to the files of
emails. Both are made when a handler asks for them."""

from uuid import UUID

import asyncpg
import httpx2

from app.attachments.given import Archive, Attachments
from app.outbound.for_handlers import make_client
from app.outbound.rules import Rules
from app.settings import Settings


class Surroundings:
    """What handlers are given besides their emails.

    Args:
        pool: connections of the event loop that they run in.
        is_dry_run: refuse their requests that may change something elsewhere.
    """

    def __init__(
        self,
        settings: Settings,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        is_dry_run: bool = False,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._is_dry_run = is_dry_run
        self._archive = Archive(settings.attachment_store_url)
        self._client: httpx2.AsyncClient | None = None

    def client(self) -> httpx2.AsyncClient:
        """The HTTP client."""
        if self._client is None:
            self._client = make_client(
                Rules.from_settings(self._settings, hosts=None),
                ca_file=self._settings.outbound_ca_file,
                is_dry_run=self._is_dry_run,
            )
        return self._client

    def attachments(self, email_id: UUID) -> Attachments:
        """The files of an email."""
        return Attachments(lambda: self._archive.attachments(self._pool, email_id))

    async def close(self) -> None:
        """Close the connections of the client."""
        if self._client is not None:
            await self._client.aclose()
