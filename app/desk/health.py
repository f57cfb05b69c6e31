"""Health for load balancers and people: is the process alive, can it take email."""

import asyncio
from typing import Any

import asyncpg
import attrs
from litestar import Controller, Response, get
from litestar.openapi.datastructures import ResponseSpec

from app.errors import MailroomError
from app.migrations import schema_state

READY_SECONDS = 5.0


@attrs.frozen
class Health:
    """What is checked and what was found."""

    status: str
    checks: dict[str, str]


class HealthController(Controller):
    """`/health/live` and `/health/ready`."""

    path = "/health"
    tags = ["Health"]  # noqa: RUF012 - Litestar declares it so

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
        checks: dict[str, Any]
        try:
            async with asyncio.timeout(READY_SECONDS):
                state = await schema_state()
            is_ready = not state.missing
            checks = {"database": "reachable", "migrations": state.explanation}
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, MailroomError) as error:
            is_ready = False
            checks = {"database": f"not reachable ({type(error).__name__})"}
        return Response(
            Health("ready" if is_ready else "unavailable", checks),
            status_code=200 if is_ready else 503,
        )
