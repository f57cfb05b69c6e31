"""create_app(): routes, lifespan, error handlers; nothing else."""

import asyncio
import contextlib
import importlib.metadata
from collections.abc import AsyncIterator
from typing import Literal, TypeAlias

from litestar import Litestar, Router
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, OpenAPI, SecurityScheme, Server
from litestar.types import ControllerRouterHandler

from app.api.alarm_metrics import AlarmCounts
from app.api.attachment_metrics import AttachmentCounts
from app.api.attachments import AttachmentsController
from app.api.audit import AuditController
from app.api.bulk import BulkController
from app.api.canary_metrics import CanaryCounts
from app.api.chore_metrics import ChoreCounts
from app.api.deliveries import DeliveriesController
from app.api.delivery_metrics import DeliveryCounts
from app.api.docs import ApiDocsPlugin, api_docs_router
from app.api.erasures import ErasuresController
from app.api.gap_metrics import GapCounts
from app.api.health import HealthController, HealthLooks
from app.api.jobs import JobsController
from app.api.metrics import Counting, EmailCounts, metrics
from app.api.pause_metrics import PauseState
from app.api.processing import ProcessingController
from app.api.quarantine import QuarantineController
from app.attachments.given import Archive
from app.chores_of import chores_of, chores_of_web
from app.database.engine import ANSWER_SECONDS, DB, close_pool, running_pool
from app.database.schema_fit import say_whether_the_schema_fits
from app.desk.admin import PATH as ADMIN_PATH
from app.desk.admin import mount_admin
from app.desk.audit_pages import AuditPages
from app.desk.bulk_pages import BulkPages
from app.desk.code_page import CodePage
from app.desk.delivery_pages import DeliveryPages
from app.desk.email_download import EmailDownload
from app.desk.email_list import EmailList
from app.desk.email_page import EmailPage
from app.desk.file_pages import FilePages
from app.desk.housekeeping import keep_house
from app.desk.language import LanguageForm, choose_language
from app.desk.lint_page import LintPage
from app.desk.live import Live, live
from app.desk.overview import OverviewController
from app.desk.pages import static_files, template_config
from app.desk.people_pages import PeoplePages
from app.desk.processing_form import ProcessingForm, watch_pause
from app.desk.provider_pages import ProviderPages
from app.desk.quarantine_list import QuarantineList
from app.desk.quarantine_pages import QuarantinePages
from app.desk.row_pages import RowPages
from app.desk.second_step_pages import SecondStepPages
from app.desk.signing_in import SignInPages
from app.desk.suspended_pages import SuspendedPages
from app.desk.worker_pages import WorkerPages
from app.http.bodies import LARGEST_BODY, BodyBudget, BoundedBodies
from app.http.head_requests import HeadRequests
from app.http.problems import any_exception_to_problem, http_exception_to_problem
from app.http.security_headers import SecurityHeaders
from app.http.strict import describe_bodies
from app.intake.controller import ZendeskWebhookController
from app.intake.front_door import FrontDoor
from app.intake.intake import CONNECTIONS, Intake
from app.intake.keeper import IntakeKeeper
from app.intake.openapi import describe_webhook
from app.intake.quarantine import Quarantine
from app.intake.sender_ranges import SenderRanges
from app.jobs.chore_runner import Chores
from app.settings import get_settings
from app.telemetry.logs import configure_logging
from app.telemetry.request_id import RequestIds
from app.telemetry.tracing import start_tracing, stop_tracing

SCHEMA_PATH = "/schema"

Part: TypeAlias = Literal["intake", "desk"]

CONTROLLERS_WITH_BODIES = (
    JobsController,
    DeliveriesController,
    QuarantineController,
    ProcessingController,
    BulkController,
)

# Besides the Intake's one for the quarantine, one for the question whether email can be stored.
INTAKE_CONNECTIONS = CONNECTIONS + 2
CHORES_STOP_SECONDS = 1.0
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
            DeliveriesController,
            AttachmentsController,
            BulkController,
            ErasuresController,
            ProcessingController,
            QuarantineController,
            AuditController,
        ]
        routes.append(_pages())
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
            openapi_router=api_docs_router(SCHEMA_PATH, lambda openapi: _describe(openapi, only)),
            use_handler_docstrings=True,
            version=importlib.metadata.version("mailroom"),
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
    router = BoundedBodies(HeadRequests(app.asgi_handler), budget)
    answering = SecurityHeaders(router, settings, (ADMIN_PATH, SCHEMA_PATH))
    app.asgi_handler = FrontDoor(RequestIds(answering))
    return app


def _describe(openapi: OpenAPI, only: Part | None) -> None:
    if only != "desk":
        describe_webhook(openapi)
    if only != "intake":
        for controller in CONTROLLERS_WITH_BODIES:
            describe_bodies(openapi, controller.path)


def _pages() -> Router:
    """What people see, in their language."""
    return Router(
        path="/",
        route_handlers=[
            OverviewController,
            ProcessingForm,
            live,
            EmailDownload,
            EmailList,
            EmailPage,
            BulkPages,
            DeliveryPages,
            FilePages,
            WorkerPages,
            QuarantineList,
            QuarantinePages,
            LintPage,
            SuspendedPages,
            AuditPages,
            PeoplePages,
            SignInPages,
            CodePage,
            ProviderPages,
            SecondStepPages,
            LanguageForm,
            RowPages,
        ],
        before_request=choose_language,
        response_headers={"Vary": "Accept-Language, Cookie"},
    )


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
    ranges = SenderRanges(get_settings(), running_pool())
    app.state.sender_ranges = ranges
    intake_keeper = IntakeKeeper(get_settings(), running_pool(), ranges, intake.secret_uses)
    counts: list[Counting] = [
        EmailCounts(running_pool()),
        AttachmentCounts(running_pool(), are_fetched=get_settings().attachments != "off"),
        DeliveryCounts(running_pool(), get_settings()),
        ChoreCounts(running_pool(), chores_of(get_settings())),
        AlarmCounts(running_pool()),
        GapCounts(running_pool(), watched_every=get_settings().watched_every),
        PauseState(running_pool()),
        CanaryCounts(running_pool(), get_settings()),
    ]
    app.state.counts = counts
    health = HealthLooks(intake_pool)
    app.state.health = health
    app.state.archive = Archive(get_settings().attachment_store_url)
    chores = Chores(chores_of_web(get_settings()), pool=running_pool(), leases=running_pool())
    doing_chores = asyncio.create_task(chores.run())
    try:
        yield
    finally:
        await chores.stop(CHORES_STOP_SECONDS)
        doing_chores.cancel()
        await intake.close()
        await intake_keeper.close()
        await quarantine.close()
        for counting in counts:
            await counting.close()
        await health.close()
        stop_tracing()
        await close_pool(intake_pool)
        await close_pool(event_pool)
        await DB.close_connection_pool()
        DB.release()


@contextlib.asynccontextmanager
async def _desk(app: Litestar) -> AsyncIterator[None]:
    app.state.live = Live()
    tasks = [
        asyncio.create_task(keep_house(running_pool())),
        asyncio.create_task(watch_pause(app, running_pool())),
    ]
    try:
        yield
    finally:
        app.state.live.close()
        for task in tasks:
            task.cancel()
        if "lookout" in app.state:
            await app.state.lookout.close()
        if "provider" in app.state:
            await app.state.provider.close()
