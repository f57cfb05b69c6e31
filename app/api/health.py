"""Health for load balancers and people: is the process alive, can it take email."""

import asyncio
from typing import Any

import asyncpg
import attrs
from litestar import Controller, Request, Response, get
from litestar.openapi.datastructures import ResponseSpec

from app.api.look import Look
from app.database.engine import DB
from app.database.errors import CANNOT_ASK
from app.database.schema_fit import schema_state
from app.errors import MailroomError
from app.i18n.texts import N_
from app.jobs.broker_url import try_broker
from app.settings import get_settings

READY_SECONDS = 5.0
REST_SECONDS = 1.0
# It is told to people and decides nothing, so it is asked seldom and not waited for.
BROKER_REST_SECONDS = 10.0
BROKER_SECONDS = 1.0
NOT_REACHABLE = "not reachable"
WITHOUT_BROKER = N_("emails are stored and wait until it is back")

# PostgreSQL checks rights and whether the session may write at all, and has nothing to write then.
TRY_TO_WRITE = "INSERT INTO incoming_emails (from_email) SELECT '' WHERE false"


@attrs.frozen
class Health:
    """What is checked and what was found."""

    status: str
    checks: dict[str, str]


class HealthLooks:
    """What is found of the database and of the broker. Anybody may ask, and must not get more of
    them than a look now and then.

    Args:
        pool: the Intake's, for it is what has to be ready.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._database = Look(lambda: _look(pool), rest_seconds=lambda _: REST_SECONDS)
        self._broker = Look[str](
            _look_at_broker,
            rest_seconds=lambda _: BROKER_REST_SECONDS,
            patience_seconds=BROKER_SECONDS,
            at_first="not asked yet",
        )

    async def see(self) -> Health:
        """What was found, seconds old at most."""
        found = await self._database.see()
        return attrs.evolve(found, checks={**found.checks, "broker": await self._broker.see()})

    async def close(self) -> None:
        """Give up what is being looked at."""
        await self._database.close()
        await self._broker.close()


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
    async def ready(self, request: Request[Any, Any, Any]) -> Response[Health]:
        """200 where emails can be stored; 503 and the reason where they cannot.

        A database that is newer than the code is reported and does not make it unready, as long
        as the table of emails has what this version needs: during a rolling deployment the old
        processes go on taking email beside the new schema. Nor does
        a broker that is away: emails are stored without it, and wait.
        """
        health = await request.app.state.health.see()
        return Response(health, status_code=200 if health.status == "ready" else 503)


async def _look_at_broker() -> str:
    try:
        await asyncio.to_thread(try_broker, get_settings(), DB.url)
    except Exception:  # noqa: BLE001 - whatever a library raises, email is taken
        return f"{NOT_REACHABLE}: {WITHOUT_BROKER}"
    return "reachable"


async def _look(pool: "asyncpg.Pool[asyncpg.Record]") -> Health:
    try:
        async with asyncio.timeout(READY_SECONDS), pool.acquire() as connection:
            state = await schema_state(connection)
            if state.takes_email:
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
