"""Piccolo Admin at `/admin`: the tables as they are, for operators to look at.

Rows are read-only here; what an operator may do is at the desk. Users are a matter of superusers.
Making it takes more than a second of processor time for each role, most of what the start of a web
process would take, so each is made when somebody asks for it.
"""

import asyncio
from typing import Any, cast
from urllib.parse import urlencode

from litestar import asgi
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from piccolo_admin.endpoints import TableConfig, create_admin
from piccolo_api.rate_limiting.middleware import RateLimitProvider
from piccolo_api.session_auth.tables import SessionsBase
from starlette.responses import RedirectResponse

from app.desk import authenticator
from app.desk.addresses import ADMIN_PATH, SECOND_STEP_PATH
from app.desk.admin_audit import audited
from app.desk.admin_mount import guarded
from app.desk.admin_page import with_ours
from app.desk.admin_tables import ONLY_LOOK, tables_of
from app.desk.login_limit import network, network_of
from app.desk.operators import Operator
from app.desk.sign_in import signed_in
from app.http.known_hosts import only_known_hosts
from app.models.operator_account import Role
from app.settings import Settings

PATH = ADMIN_PATH
PAGES = (b"/", b"/public/login/", b"/public/logout/")
# Piccolo's own page turns the second step on without a code that shows that the app has it.
SECOND_STEP = "/api/mfa-setup"


class _NoLimit(RateLimitProvider):
    """Piccolo Admin's own limit counts in one process alone. Ours is in `Operator.login`."""

    def increment(self, identifier: str) -> None:
        pass


def mount_admin(settings: Settings) -> asgi:
    """The ASGI mount of Piccolo Admin: with the users for superusers, without them for others."""

    def make(*tables: TableConfig, is_for_viewers: bool = False) -> ASGIApp:
        made: Any = create_admin(
            tables,
            read_only=is_for_viewers,
            auth_table=Operator,
            session_table=SessionsBase,
            production=settings.is_production,
            site_name="Mailroom",
            auto_include_related=False,
            allowed_hosts=settings.allowed_hosts,
            sidebar_links={"Overview": f"{settings.root_path}/"},
            rate_limit_provider=_NoLimit(),
            mfa_providers=[authenticator.SECOND_STEP],
        )
        made.template = with_ours(made.template, read_only=ONLY_LOOK)
        shown = {table.table_class._meta.tablename: table for table in tables}
        return guarded(audited(made), shown)

    def make_for(role: Role) -> ASGIApp:
        sees_bodies = role is not Role.VIEWER or settings.viewers_see_bodies
        tables = tables_of(role, sees_bodies=sees_bodies)
        return make(*tables, is_for_viewers=role is Role.VIEWER)

    made_for: dict[Role, ASGIApp] = {}
    making = asyncio.Lock()

    async def application_for(role: Role) -> ASGIApp:
        async with making:
            if role not in made_for:
                # In the event loop, webhooks would wait for it.
                made_for[role] = await asyncio.to_thread(make_for, role)
        return made_for[role]

    address = f"{settings.root_path}{PATH}/"
    sign_in = f"{settings.root_path}/sign-in?{urlencode({'next': address})}"
    second_step = f"{settings.root_path}{SECOND_STEP_PATH}"

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
        if scope["path"].startswith(SECOND_STEP):
            redirect = cast(ASGIApp, RedirectResponse(second_step, status_code=303))
            await redirect(scope, receive, send)
            return
        network.set(network_of(scope))
        is_page = below in PAGES and scope.get("method") == "GET"
        user = await signed_in(scope) if is_page or below.startswith(b"/api/") else None
        if is_page and (user is None or below != b"/"):
            # Piccolo's own pages are of another look; what they post is answered as ever.
            redirect = cast(ASGIApp, RedirectResponse(sign_in, status_code=303))
            await redirect(scope, receive, send)
            return
        application = await application_for(Role.VIEWER if user is None else user.role)
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
