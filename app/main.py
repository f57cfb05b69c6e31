"""create_app(): routes, lifespan, error handlers; nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal, TypeAlias

from litestar import Litestar
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Server
from litestar.types import ControllerRouterHandler

from app.api.attachment_metrics import AttachmentCounts
from app.api.attachments import AttachmentsController
from app.api.docs import ApiDocsPlugin
from app.api.health import HealthController, HealthLooks
from app.api.jobs import JobsController
from app.api.metrics import EmailCounts, metrics
from app.api.quarantine import QuarantineController
from app.attachments.given import Archive
from app.database.engine import ANSWER_SECONDS, DB, close_pool, running_pool
from app.database.migrations import say_whether_the_schema_fits
from app.desk.admin import PATH as ADMIN_PATH
from app.desk.admin import mount_admin
from app.desk.housekeeping import keep_house
from app.desk.overview import OverviewController, static_files, template_config
from app.desk.quarantine_pages import QuarantinePages
from app.http.bodies import LARGEST_BODY, BodyBudget, BoundedBodies
from app.http.problems import any_exception_to_problem, http_exception_to_problem
from app.http.security_headers import SecurityHeaders
from app.http.strict import describe_bodies
from app.intake.controller import ZendeskWebhookController
from app.intake.front_door import FrontDoor
from app.intake.intake import Intake
from app.intake.keeper import IntakeKeeper
from app.intake.openapi import describe_webhook
from app.intake.quarantine import Quarantine
from app.settings import get_settings
from app.telemetry.logs import configure_logging
from app.telemetry.request_id import RequestIds
from app.telemetry.tracing import start_tracing, stop_tracing

SCHEMA_PATH = "/schema"

Part: TypeAlias = Literal["intake", "desk"]

# One for the Intake, one for the quarantine, one for the question whether email can be stored.
INTAKE_CONNECTIONS = 3
# Events of one ticket wait for each other with a connection in hand: emails do not wait for them.
EVENT_CONNECTIONS = 2


def create_app(only: Part | None = None) -> Litestar:
    """The web application: takes email, and lets people and programs look after it.

    Args:
        only: leave the other part to another process. Health and metrics belong to both.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = get_settings()
    configure_logging(settings)
    budget = BodyBudget(settings.intake_max_waiting_bytes, largest_body=settings.max_body_bytes)
    routes: list[ControllerRouterHandler] = [metrics, HealthController]
    lifespan = [_database_and_intake]
    if only != "desk":
        routes.append(ZendeskWebhookController)
    if only != "intake":
        routes += [
            JobsController,
            AttachmentsController,
            OverviewController,
            QuarantineController,
            QuarantinePages,
        ]
        routes += [static_files(), mount_admin(settings)]
        lifespan.append(_desk)
    app = Litestar(
        route_handlers=routes,
        template_config=template_config(),
        request_max_body_size=LARGEST_BODY,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: http_exception_to_problem,
            Exception: any_exception_to_problem,
        },
        openapi_config=OpenAPIConfig(
            title="Mailroom",
            path=SCHEMA_PATH,
            use_handler_docstrings=True,
            version="0.1.0",
            description="The place where a support team's inbound email can never get lost.",
            render_plugins=[ApiDocsPlugin(settings.root_path), JsonRenderPlugin()],
            servers=[Server(url=settings.root_path or "/")],
            components=Components(
                security_schemes={
                    "token": SecurityScheme(
                        type="http", scheme="bearer", description="Made by `mailroom token create`"
                    )
                }
            ),
        ),
        logging_config=None,
    )
    # Litestar's own way of adding them costs each webhook more than they do.
    router = BoundedBodies(app.asgi_handler, budget)
    answering = SecurityHeaders(router, settings, (ADMIN_PATH, SCHEMA_PATH))
    app.asgi_handler = FrontDoor(RequestIds(answering))
    if only != "desk":
        describe_webhook(app.openapi_schema)
    if only != "intake":
        describe_bodies(app.openapi_schema, JobsController.path)
        describe_bodies(app.openapi_schema, QuarantineController.path)
    return app


@contextlib.asynccontextmanager
async def _database_and_intake(app: Litestar) -> AsyncIterator[None]:
    # No connection is opened yet: a database that is away must not keep the process from
    # answering 503, which Zendesk repeats. A refused connection it does not repeat.
    await DB.start_connection_pool(command_timeout=ANSWER_SECONDS)
    # Operators and programs may search for seconds. Email does not wait for their connections.
    intake_pool = await DB.make_pool(max_size=INTAKE_CONNECTIONS)
    app.state.intake_pool = intake_pool
    event_pool = await DB.make_pool(max_size=EVENT_CONNECTIONS)
    await say_whether_the_schema_fits()
    start_tracing()
    # At the desk, too: what is kept in the quarantine is admitted there.
    intake = Intake(get_settings(), intake_pool, event_pool=event_pool)
    app.state.intake = intake
    quarantine = Quarantine(get_settings(), intake_pool)
    app.state.quarantine = quarantine
    intake_keeper = IntakeKeeper(get_settings(), running_pool())
    email_counts = EmailCounts(running_pool())
    app.state.email_counts = email_counts
    attachment_counts = AttachmentCounts(running_pool())
    app.state.attachment_counts = attachment_counts
    health = HealthLooks(intake_pool)
    app.state.health = health
    app.state.archive = Archive(get_settings().attachment_store_url)
    try:
        yield
    finally:
        await intake.close()
        await intake_keeper.close()
        await quarantine.close()
        await email_counts.close()
        await attachment_counts.close()
        await health.close()
        stop_tracing()
        await close_pool(intake_pool)
        await close_pool(event_pool)
        await DB.close_connection_pool()
        DB.release()


@contextlib.asynccontextmanager
async def _desk(app: Litestar) -> AsyncIterator[None]:
    housekeeping = asyncio.create_task(keep_house(running_pool()))
    try:
        yield
    finally:
        housekeeping.cancel()
