"""Health for load balancers and people: is the process alive, can it take email."""

import asyncio
import math
import time
from typing import Any

import asyncpg
import attrs
from litestar import Controller, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec

from app.database import DB
from app.database_errors import CANNOT_ASK
from app.errors import MailroomError
from app.jobs.broker import try_broker
from app.migrations import schema_state
from app.settings import get_settings

READY_SECONDS = 5.0
REMEMBERED_SECONDS = 1.0
# It is told to people and decides nothing, so it is asked seldom and not waited for.
BROKER_REMEMBERED_SECONDS = 10.0
BROKER_SECONDS = 1.0

# PostgreSQL checks rights and whether the session may write at all, and has nothing to write then.
TRY_TO_WRITE = "INSERT INTO incoming_emails (from_email) SELECT '' WHERE false"


@attrs.frozen
class Health:
    """What is checked and what was found."""

    status: str
    checks: dict[str, str]


class HealthController(Controller):
    """`/health/live` and `/health/ready`."""

    path = "/health"
    tags = ["Health"]  # noqa: RUF012 - Litestar declares it so

    # Anybody may ask, and must not get more of the database than one look a second.
    _one_at_a_time = asyncio.Lock()
    _looked_at = -math.inf
    _found = Health("unavailable", {})
    _broker_look: "asyncio.Task[str] | None" = None
    _broker_looked_at = -math.inf
    _broker_found = "not asked yet"

    @get("/live", summary="Is the process alive", operation_id="healthLive", sync_to_thread=False)
    def live(self) -> Health:
        """It answers, so it lives. Restart the process where this fails."""
        return Health("ok", {})

    @get(
        "/ready",
        summary="Can it take email",
        operation_id="healthReady",
        responses={
            503: ResponseSpec(Health, generate_examples=False, description="It cannot: see checks")
        },
    )
    async def ready(self, request: Request[Any, Any, Any]) -> Response[Health]:
        """200 where emails can be stored; 503 and the reason where they cannot.

        A database that is newer than the code is reported and does not make it unready: during
        a rolling deployment the old processes go on taking email beside the new schema. Nor does
        a broker that is away: emails are stored without it, and wait.
        """
        async with self._one_at_a_time:
            if time.monotonic() > self._looked_at + REMEMBERED_SECONDS:
                found = await _look(request.app.state.intake_pool)
                self._found = attrs.evolve(
                    found, checks={**found.checks, "broker": await self._ask_broker()}
                )
                self._looked_at = time.monotonic()
        is_ready = self._found.status == "ready"
        return Response(self._found, status_code=200 if is_ready else 503)

    async def _ask_broker(self) -> str:
        if self._broker_look is None:
            if time.monotonic() < self._broker_looked_at + BROKER_REMEMBERED_SECONDS:
                return self._broker_found
            self._broker_look = asyncio.create_task(_look_at_broker())
        done, _ = await asyncio.wait({self._broker_look}, timeout=BROKER_SECONDS)
        if done:
            self._broker_found = self._broker_look.result()
            self._broker_look, self._broker_looked_at = None, time.monotonic()
        return self._broker_found


async def _look_at_broker() -> str:
    try:
        await asyncio.to_thread(try_broker, get_settings(), DB.url)
    except Exception:  # noqa: BLE001 - whatever a library raises, email is taken
        return "not reachable: emails are stored and wait until it is back"
    return "reachable"


async def _look(pool: "asyncpg.Pool[asyncpg.Record]") -> Health:
    try:
        async with asyncio.timeout(READY_SECONDS), pool.acquire() as connection:
            state = await schema_state(connection)
            if not state.missing:
                await connection.execute(TRY_TO_WRITE)
    except asyncpg.ReadOnlySQLTransactionError:
        return Health(
            "unavailable",
            {"database": "read-only: see that DATABASE_URL leads to the primary, and may write"},
        )
    except (*CANNOT_ASK, MailroomError) as error:
        return Health("unavailable", {"database": f"not reachable ({type(error).__name__})"})
    return Health(
        "ready" if state.takes_email else "unavailable",
        {"database": "reachable", "migrations": state.explanation},
    )
