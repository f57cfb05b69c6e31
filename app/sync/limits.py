"""How much is delivered at once, and how often it is tried."""

from datetime import timedelta
from typing import Self

import attrs

from app.settings import Settings


@attrs.frozen
class Limits:
    """How much is delivered at once, and how often it is tried."""

    concurrency: int
    batch: int
    batch_bytes: int
    lease: timedelta
    pauses: tuple[float, ...]
    probe_lost_after: timedelta
    in_order: bool

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            concurrency=settings.sync_concurrency,
            batch=settings.sync_batch,
            batch_bytes=settings.sync_batch_max_bytes,
            lease=timedelta(seconds=settings.lease_seconds),
            pauses=settings.sync_retry_seconds,
            probe_lost_after=timedelta(
                seconds=settings.sync_timeout_seconds + settings.lease_seconds
            ),
            in_order=settings.sync_order == "ticket",
        )
