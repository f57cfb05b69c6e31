"""The Intake's keeper: what is too old in the quarantine goes, whether further webhooks come or
not, and what events left half done is done."""

import asyncio
from datetime import timedelta

import asyncpg
import structlog

from app.intake.erasures import settle
from app.intake.quarantine import expire
from app.intake.secret_uses import SecretUses
from app.intake.sender_ranges import SenderRanges
from app.settings import Settings

log = structlog.get_logger(__name__)

EXPIRE_EVERY_SECONDS = 10.0


class IntakeKeeper:
    """Runs in each web process; several at once do not hurt each other."""

    def __init__(
        self,
        settings: Settings,
        pool: "asyncpg.Pool[asyncpg.Record]",
        ranges: SenderRanges | None = None,
        secret_uses: SecretUses | None = None,
    ) -> None:
        self._pool = pool
        self._ranges = ranges
        self._secret_uses = secret_uses
        self._max_age = timedelta(days=settings.quarantine_max_age_days)
        self._is_failing = False
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)

    async def run_once(self) -> None:
        """Read Zendesk's addresses anew if it is time, delete all that is too old now, settle what
        erasures and late files left, and note which secrets are in use."""
        if self._ranges is not None:
            await self._ranges.run_once()
        while await expire(self._pool, self._max_age):
            pass
        await settle(self._pool)
        if self._secret_uses is not None:
            await self._secret_uses.write_down(self._pool)

    async def close(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001 - it has to go on whatever happens
                if not self._is_failing:
                    log.warning("intake_keeper_interrupted", error=type(error).__name__)
                self._is_failing = True
            else:
                self._is_failing = False
            await asyncio.sleep(EXPIRE_EVERY_SECONDS)
