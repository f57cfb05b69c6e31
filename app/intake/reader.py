"""From the bytes of a webhook to its fields, whoever signed it and whatever its template broke.

It keeps what is known of the templates' fields: from the setting, and learned as payloads come.
"""

import asyncio
from collections.abc import Iterable

import asyncpg
import structlog

from app.intake.field_orders import FieldOrders
from app.intake.json_body import BrokenBodyError, JsonBody, read_json_object
from app.intake.mended_body import read_mended, read_without_intruders
from app.settings import Settings

log = structlog.get_logger(__name__)

# Beyond it, mending would hold up other webhooks.
LARGE_BODY = 64 * 1024

NEWEST_ROWS, LARGEST_READ = 200, 64 * 1024
# Ids sort by time. `raw_payload` is an object where the payload came whole.
NEWEST_ORDERS = """
SELECT DISTINCT ARRAY(SELECT json_object_keys(raw_payload)) AS names
FROM (
    SELECT raw_payload FROM incoming_emails
    WHERE delivery_signature IS NOT NULL
    ORDER BY id DESC LIMIT $1
) AS newest
WHERE pg_column_size(raw_payload) < $2 AND json_typeof(raw_payload) = 'object'
"""


class BodyReader:
    """Reads the bodies of webhooks."""

    def __init__(self, settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self.orders = FieldOrders(settings.webhook_fields)
        self._has_looked = False

    async def read(self, body: bytes, content_type: str | None, *, is_signed: bool) -> JsonBody:
        """Read a body; mend it if it is signed and there is one way to do so.

        Raises:
            BrokenBodyError: it is not JSON, or not in its charset, and not mended.
            UnreadableBodyError: it is blank, or JSON that is no object.
        """
        try:
            json_body = read_json_object(body, content_type)
        except BrokenBodyError:
            if not is_signed:
                raise
            await self._look_back()
            if len(body) < LARGE_BODY:
                return read_mended(body, content_type, self.orders)
            return await asyncio.to_thread(read_mended, body, content_type, self.orders)
        if not is_signed:
            return json_body
        return read_without_intruders(body, json_body, content_type, self.orders)

    def read_whole(self, body: bytes) -> JsonBody:
        """Read a body in UTF-8 for which an operator answers: it is JSON, or it is refused.

        Raises:
            BrokenBodyError: it is not JSON, or a field comes twice.
            UnreadableBodyError: it is blank, or JSON that is no object.
        """
        return read_without_intruders(body, read_json_object(body), None, self.orders)

    def learn(self, names: Iterable[str]) -> None:
        """Remember the fields of a payload that came whole."""
        self.orders.learn(names)

    async def _look_back(self) -> None:
        """Once, when the first broken body comes: which fields did payloads have before?"""
        if self._has_looked:
            return
        try:
            orders = await self._pool.fetch(NEWEST_ORDERS, NEWEST_ROWS, LARGEST_READ)
        except asyncpg.PostgresError as error:
            # A payload of an older version may hold what PostgreSQL refuses to give out.
            log.warning("field_orders_not_read", error=type(error).__name__)
        else:
            for order in orders:
                self.orders.learn(order["names"])
        self._has_looked = True
