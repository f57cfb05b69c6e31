"""What a deliverer takes next: emails, and events that tell of erasures, each by its share."""

import itertools
from datetime import timedelta
from uuid import UUID

import asyncpg

from app.sync.claims import Claimed, claim_emails, claim_events
from app.sync.event import EventMaker
from app.sync.limits import Limits

# In the order of tickets, until those are looked at again that nobody let go.
PUT_OFF = timedelta(seconds=30)


class Claimer:
    """Claims for one deliverer.

    Args:
        receiver: its name in `sync_receivers`.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        receiver: str,
        maker: EventMaker,
        limits: Limits,
    ) -> None:
        self._pool = pool
        self._receiver = receiver
        self._maker = maker
        self._limits = limits
        self._turns = itertools.cycle((1, 0))

    async def claim(self, limit: int, probe: UUID | None = None) -> list[Claimed]:
        """So many at the most, half of them events and half emails where there are as many: a large
        erasure holds up no email, nor the other way round. Of an odd one they take turns.

        Args:
            probe: the token of a probe.
        """
        share = (limit + next(self._turns)) // 2
        events = await self._events(share, probe)
        emails = await self._emails(limit - len(events), probe)
        if len(events) == share:
            events += await self._events(limit - len(events) - len(emails), probe)
        return events + emails

    async def _events(self, limit: int, probe: UUID | None) -> list[Claimed]:
        if not limit:
            return []
        return await claim_events(
            self._pool,
            limit=limit,
            lease=self._limits.lease,
            receiver=self._receiver,
            probe=probe,
        )

    async def _emails(self, limit: int, probe: UUID | None) -> list[Claimed]:
        if not limit:
            return []
        return await claim_emails(
            self._pool,
            limit=limit,
            lease=self._limits.lease,
            receiver=self._receiver,
            most_body_bytes=self._maker.most_body_bytes,
            most_data_bytes=self._maker.most_bytes,
            probe=probe,
            put_off=PUT_OFF if self._limits.in_order else None,
        )
