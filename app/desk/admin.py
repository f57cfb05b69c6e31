"""Piccolo Admin at `/admin`: operators watch and search the emails there, and retry them.

An email changes by the transitions of its job alone, so its rows are read-only here; retrying is a
form that goes through the same transition as everybody's.
"""

from typing import cast
from uuid import UUID

from litestar import asgi
from litestar.types import ASGIApp, Receive, Scope, Send
from piccolo.apps.user.tables import BaseUser
from piccolo_admin.endpoints import FormConfig, TableConfig, create_admin
from piccolo_api.crud.endpoints import OrderBy, PiccoloCRUD
from piccolo_api.crud.validators import Validators
from piccolo_api.session_auth.tables import SessionsBase
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse

from app.database import running_pool
from app.jobs import transitions
from app.models.incoming_email import IncomingEmail
from app.settings import Settings

PATH = "/admin"


def _only_look(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    if request.method not in ("GET", "HEAD"):
        raise HTTPException(
            status_code=403,
            detail="Emails cannot be changed by hand. The form “Retry an email” tries one again.",
        )


class RetryForm(BaseModel):
    """What the form asks for."""

    email_id: UUID = Field(title="Id of the email")
    force: bool = Field(default=False, title="Also if it is completed")


async def _retry(request: Request, form: RetryForm) -> str:
    changed = await transitions.retry(
        running_pool(), form.email_id, by=request.user.user.username, force=form.force
    )
    if not changed:
        raise ValueError(
            "This email is not failed, so there is nothing to retry. Is the id right? A completed "
            "email is processed again only if you tick the box."
        )
    return "The email is queued again."


EMAILS = TableConfig(
    IncomingEmail,
    visible_columns=[
        IncomingEmail.id,
        IncomingEmail.received_at,
        IncomingEmail.processing_status,
        IncomingEmail.from_email,
        IncomingEmail.subject,
        IncomingEmail.zendesk_ticket_id,
        IncomingEmail.retry_count,
        IncomingEmail.processing_error,
    ],
    visible_filters=[
        IncomingEmail.processing_status,
        IncomingEmail.from_email,
        IncomingEmail.subject,
        IncomingEmail.zendesk_ticket_id,
        IncomingEmail.received_at,
        IncomingEmail.sync_status,
    ],
    order_by=[OrderBy(IncomingEmail.received_at, ascending=False)],
    validators=Validators(every=[_only_look]),
)


def mount_admin(settings: Settings) -> asgi:
    """The ASGI mount of Piccolo Admin."""
    application: ASGIApp = create_admin(
        [EMAILS],
        forms=[
            FormConfig(
                name="Retry an email",
                pydantic_model=RetryForm,
                endpoint=_retry,
                description="A failed email is processed again from its first attempt.",
            )
        ],
        auth_table=BaseUser,
        session_table=SessionsBase,
        production=settings.is_production,
        site_name="Mailroom",
        auto_include_related=False,
        allowed_hosts=settings.allowed_hosts,
    )

    @asgi(PATH, is_mount=True, copy_scope=True)
    async def admin(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("raw_path") == PATH.encode():
            # The page names its files relative to itself, so it needs the slash.
            redirect = cast(ASGIApp, RedirectResponse(f"{PATH}/", status_code=308))
            await redirect(scope, receive, send)
        else:
            await application(scope, receive, send)

    return admin
