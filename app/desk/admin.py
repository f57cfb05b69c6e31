"""Piccolo Admin at `/admin`: the tables as they are, for operators to look at.

Rows are read-only here; what an operator may do is at the desk. Users are a matter of superusers.
Making it takes more than a second of processor time for each role, most of what the start of a web
process would take, so each is made when somebody asks for it.
"""

import asyncio
import importlib
from typing import cast
from urllib.parse import urlencode

from litestar import asgi
from litestar.exceptions import NotFoundException
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from starlette.responses import RedirectResponse

from app.desk.addresses import ADMIN_PATH, SECOND_STEP_PATH
from app.desk.login_limit import network, network_of
from app.desk.sign_in import signed_in
from app.http.known_hosts import only_known_hosts
from app.models.operator_account import Role
from app.settings import Settings

PATH = ADMIN_PATH
PAGES = ("/", "/public/login/", "/public/logout/")
# Piccolo's own page turns the second step on without a code that shows that the app has it.
SECOND_STEP = "/api/mfa-setup"


def mount_admin(settings: Settings) -> asgi:
    """The ASGI mount of Piccolo Admin: with the users for superusers, without them for others."""

    made_for: dict[Role, ASGIApp] = {}
    making = asyncio.Lock()

    async def application_for(role: Role) -> ASGIApp:
        async with making:
            if role not in made_for:
                # In the event loop, webhooks would wait for it.
                made_for[role] = await asyncio.to_thread(_make_for, role, settings)
        return made_for[role]

    address = f"{settings.root_path}{PATH}/"
    sign_in = f"{settings.root_path}/sign-in?{urlencode({'next': address})}"
    second_step = f"{settings.root_path}{SECOND_STEP_PATH}"

    @asgi(PATH, is_mount=True, copy_scope=True, guards=[only_known_hosts])
    async def admin(scope: Scope, receive: Receive, send: Send) -> None:
        # As Piccolo finds its routes: decoded, below the mount, and with a slash at its end.
        path = scope["path"]
        if path == "/" and not scope.get("raw_path", b"").endswith(b"/"):
            # The page names its files relative to itself, so it needs the slash.
            redirect = cast(ASGIApp, RedirectResponse(address, status_code=308))
            await redirect(scope, receive, send)
            return
        if not path.startswith("/"):
            # A mount takes every path that begins like it.
            raise NotFoundException
        if path.startswith(SECOND_STEP):
            redirect = cast(ASGIApp, RedirectResponse(second_step, status_code=303))
            await redirect(scope, receive, send)
            return
        network.set(network_of(scope))
        is_page = path in PAGES and scope.get("method") == "GET"
        user = await signed_in(scope) if is_page or path.startswith("/api/") else None
        if is_page and (user is None or path != "/"):
            # Piccolo's own pages are of another look; what they post is answered as ever.
            redirect = cast(ASGIApp, RedirectResponse(sign_in, status_code=303))
            await redirect(scope, receive, send)
            return
        application = await application_for(Role.VIEWER if user is None else user.role)
        await application(scope, receive, _mark_cookies(send) if settings.is_production else send)

    return admin


def _make_for(role: Role, settings: Settings) -> ASGIApp:
    # It brings FastAPI along, which nothing else in a web process needs.
    application = importlib.import_module("app.desk.admin_application")
    return cast(ASGIApp, application.make_for(role, settings))


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
