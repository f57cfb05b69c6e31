"""Pausing and resuming of processing by a form, and what every page says while it is paused."""

import asyncio
from typing import Any

import asyncpg
import structlog
from litestar import Controller, Litestar, Request, post
from litestar.exceptions import ClientException
from litestar.response import Redirect

from app.audit.acts import Act
from app.audit.log import in_transaction, write
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import PROCESSING_PATH, address
from app.desk.pages import acting_operator, actor_of
from app.desk.sign_in import database_is_away
from app.http.known_hosts import only_known_hosts
from app.i18n.texts import gettext as _
from app.jobs import pausing
from app.jobs.pausing import PauseError

log = structlog.get_logger(__name__)

# As long a page may say what is over.
LOOK_EVERY_SECONDS = 2.0


async def watch_pause(app: Litestar, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Keep `app.state.pause` up to date, for the header of every page, until it is cancelled."""
    while True:
        try:
            app.state.pause = await pausing.find(pool)
        except CANNOT_ASK as error:
            log.debug("pause_not_known", error=type(error).__name__)
        await asyncio.sleep(LOOK_EVERY_SECONDS)


class ProcessingForm(Controller):
    """What the overview's form and the banner of a pause send."""

    path = PROCESSING_PATH
    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so

    @post(status_code=303)
    async def do(self, request: Request[Any, Any, Any]) -> Redirect:
        """Pause, with a reason, or resume; where somebody was faster, nothing."""
        user = await acting_operator(request)
        form = await request.form()
        action, actor = form.get("action"), actor_of(request, user)
        try:
            if action == "pause":
                async with in_transaction(running_pool()) as connection:
                    begun = await pausing.pause(
                        connection, by=user.username, reason=str(form.get("reason", ""))
                    )
                    await write(connection, actor, Act.PROCESSING_PAUSE)
                request.app.state.pause = begun
            elif action == "resume":
                async with in_transaction(running_pool()) as connection:
                    await pausing.resume(connection)
                    await write(connection, actor, Act.PROCESSING_RESUME)
                request.app.state.pause = None
            else:
                raise ClientException(_("the form names nothing that can be done"))
        except PauseError as error:
            raise ClientException(str(error)) from error
        except CANNOT_ASK as error:
            raise database_is_away() from error
        log.info("operator_acted", action=f"{action}_processing", by=f"user:{user.id}")
        return Redirect(address("/"), status_code=303)
