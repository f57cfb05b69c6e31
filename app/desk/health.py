"""Health for load balancers and people: is the process alive, can it take email."""

import asyncio
import math
import time

import asyncpg
import attrs
from litestar import Controller, Response, get
from litestar.openapi.datastructures import ResponseSpec

from app.database import running_pool
from app.errors import MailroomError
from app.migrations import schema_state

READY_SECONDS = 5.0
REMEMBERED_SECONDS = 1.0


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
    async def ready(self) -> Response[Health]:
        """200 where emails can be stored; 503 and the reason where they cannot.

        A database that is newer than the code is reported and does not make it unready: during
        a rolling deployment the old processes go on taking email beside the new schema.
        """
        async with self._one_at_a_time:
            if time.monotonic() > self._looked_at + REMEMBERED_SECONDS:
                self._found = await _look()
                self._looked_at = time.monotonic()
        is_ready = self._found.status == "ready"
        return Response(self._found, status_code=200 if is_ready else 503)


async def _look() -> Health:
    try:
        async with asyncio.timeout(READY_SECONDS), running_pool().acquire() as connection:
            state = await schema_state(connection)
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        MailroomError,
    ) as error:
        return Health("unavailable", {"database": f"not reachable ({type(error).__name__})"})
    return Health(
        "unavailable" if state.missing else "ready",
        {"database": "reachable", "migrations": state.explanation},
    )
