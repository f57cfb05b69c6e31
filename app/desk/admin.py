"""Piccolo Admin at `/admin`: operators watch and search the emails there, and retry them.

An email changes by the transitions of its job alone, so its rows are read-only here; what an
operator may do are forms that go through transitions. Users are a matter of superusers.
"""

from typing import Any, cast

from litestar import asgi
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from piccolo_admin.endpoints import TableConfig, create_admin
from piccolo_api.crud.endpoints import OrderBy, ParamException, PiccoloCRUD
from piccolo_api.crud.hooks import Hook, HookType
from piccolo_api.crud.validators import Validators
from piccolo_api.rate_limiting.middleware import RateLimitProvider
from piccolo_api.session_auth.tables import SessionsBase
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse

from app.desk.admin_forms import FORMS
from app.desk.admin_mount import guarded
from app.desk.login_limit import network, network_of
from app.desk.operators import Operator
from app.desk.sign_in import signed_in
from app.http.known_hosts import only_known_hosts
from app.models.incoming_email import IncomingEmail
from app.settings import Settings

PATH = "/admin"


def _only_look(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    if request.method not in ("GET", "HEAD"):
        raise HTTPException(
            status_code=403,
            detail="Emails cannot be changed by hand. The form “Retry by id” tries them again.",
        )


def _not_by_put(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    if request.method == "PUT":
        # Piccolo's PUT would store a password as it came; PATCH, which the page uses, hashes it.
        raise HTTPException(status_code=405, detail="Use PATCH.")


def _check_parameters(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    """Piccolo meets an unknown column or a parameter given twice with an exception."""
    try:
        parameters = piccolo_crud._split_params(piccolo_crud._parse_params(request.query_params))
        piccolo_crud.pydantic_model_filters(**parameters.fields)
    except (ParamException, TypeError, ValueError) as error:
        raise HTTPException(
            status_code=400,
            detail="A parameter names no column, has an impossible value or is given twice.",
        ) from error


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
        # Piccolo Admin compares a column once. Between two times: from one column, until the other.
        IncomingEmail.created_at,
        IncomingEmail.sync_status,
        IncomingEmail.processing_error,
    ],
    order_by=[OrderBy(IncomingEmail.received_at, ascending=False)],
    validators=Validators(every=[_only_look, _check_parameters]),
)


async def _hash_aside(row_id: object, values: dict[Any, Any]) -> dict[Any, Any]:
    """Piccolo would hash the new password in the event loop."""
    if password := values.pop("password", None):
        try:
            values["password"] = await Operator.prepare(password)
        except ValueError as error:
            raise HTTPException(status_code=400, detail=str(error)) from error
    return values


USERS = TableConfig(
    Operator,
    exclude_visible_columns=[Operator.password],
    exclude_visible_filters=[Operator.password],
    validators=Validators(every=[_not_by_put, _check_parameters]),
    hooks=[Hook(HookType.pre_patch, _hash_aside)],
)


class _NoLimit(RateLimitProvider):
    """Piccolo Admin's own limit counts in one process alone. Ours is in `Operator.login`."""

    def increment(self, identifier: str) -> None:
        pass


def mount_admin(settings: Settings) -> asgi:
    """The ASGI mount of Piccolo Admin: with the users for superusers, without them for others."""

    def make(*tables: TableConfig) -> ASGIApp:
        made: ASGIApp = create_admin(
            tables,
            forms=FORMS,
            auth_table=Operator,
            session_table=SessionsBase,
            production=settings.is_production,
            site_name="Mailroom",
            auto_include_related=False,
            allowed_hosts=settings.allowed_hosts,
            sidebar_links={"Overview": f"{settings.root_path}/"},
            rate_limit_provider=_NoLimit(),
        )
        return guarded(made, {table.table_class._meta.tablename: table for table in tables})

    for_operators, for_superusers = make(EMAILS), make(EMAILS, USERS)
    address = f"{settings.root_path}{PATH}/"

    @asgi(PATH, is_mount=True, copy_scope=True, guards=[only_known_hosts])
    async def admin(scope: Scope, receive: Receive, send: Send) -> None:
        below = scope.get("raw_path", b"").removeprefix(PATH.encode())
        if not below:
            # The page names its files relative to itself, so it needs the slash.
            redirect = cast(ASGIApp, RedirectResponse(address, status_code=308))
            await redirect(scope, receive, send)
            return
        if not below.startswith(b"/"):
            # A mount takes every path that begins like it.
            raise NotFoundException
        network.set(network_of(scope))
        user = await signed_in(scope) if below.startswith(b"/api/") else None
        application = for_superusers if user is not None and user.superuser else for_operators
        await application(scope, receive, _mark_cookies(send) if settings.is_production else send)

    return admin


def _mark_cookies(send: Send) -> Send:
    """Piccolo's CSRF cookie does not say that it is for https only."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name, value + b"; Secure" if value.startswith(b"csrftoken=") else value)
                for name, value in message.get("headers", ())
            ]
        await send(message)

    return marked
