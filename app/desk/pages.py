"""What all pages of the desk have in common: who may see them, and where they lead."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from litestar import Controller, Request, Router
from litestar.contrib.jinja import JinjaTemplateEngine
from litestar.datastructures import CacheControlHeader
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.response import Redirect, Template
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig
from markupsafe import Markup
from piccolo.table import Table

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import write
from app.database.engine import running_pool
from app.desk.addresses import (
    ACCOUNT_PATH,
    AUDIT_PATH,
    BULK_PATH,
    DELIVERIES_PATH,
    EMAILS_PATH,
    FILES_PATH,
    FOLDER,
    LINT_PATH,
    LIVE_PATH,
    PEOPLE_PATH,
    PROCESSING_PATH,
    QUARANTINE_PATH,
    STATIC,
    STATIC_PATH,
    SUSPENDED_PATH,
    WORKERS_PATH,
    address,
    admin_address,
    file_url,
)
from app.desk.admin import PATH as ADMIN_PATH
from app.desk.admin_roles import table_names
from app.desk.forms import check_token, form_token
from app.desk.operators import Operator
from app.desk.return_paths import sign_in_address
from app.desk.row_ways import row_address
from app.desk.sign_in import signed_in
from app.http.known_hosts import only_known_hosts
from app.i18n.formats import decimal, moment, number
from app.i18n.languages import catalogue, spoken
from app.i18n.stored_texts import as_told
from app.i18n.texts import N_, gettext
from app.models.audit_entry import Result
from app.models.operator_account import Role

MENU = (
    (N_("Overview"), "/"),
    (N_("Emails"), EMAILS_PATH),
    (N_("Bulk"), BULK_PATH),
    (N_("Files"), FILES_PATH),
    (N_("Deliveries"), DELIVERIES_PATH),
    (N_("Workers"), WORKERS_PATH),
    (N_("Quarantine"), QUARANTINE_PATH),
    (N_("Suspended"), SUSPENDED_PATH),
    (N_("Lint"), LINT_PATH),
    (N_("People"), PEOPLE_PATH),
    (N_("Audit log"), AUDIT_PATH),
    (N_("Admin"), f"{ADMIN_PATH}/"),
)
OF_ADMINS = (AUDIT_PATH, PEOPLE_PATH)
NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store"}


class PageController(Controller):
    """Pages, which no browser and no proxy keeps, and the API does not tell of."""

    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so
    response_headers = NO_STORE


def page(
    request: Request[Any, Any, Any],
    template: str,
    user: Operator,
    *,
    table: type[Table] | None = None,
    table_key: object = None,
    **context: object,
) -> Template:
    """A page with its header and the token of its forms.

    Args:
        table: where Piccolo Admin has what it shows, if it has.
        table_key: of the row there; None: the page shows many.
    """
    has_table = table is not None and table._meta.tablename in table_names(
        user.role, sees_bodies=user.sees_bodies
    )
    return Template(
        template,
        context={
            "username": user.username,
            "may_act": user.may(Role.OPERATOR),
            "role": user.role,
            "account": address(ACCOUNT_PATH),
            "file": file_url,
            "menu": [
                (gettext(name), address(path))
                for name, path in MENU
                if path not in OF_ADMINS or user.may(Role.ADMIN)
            ],
            "admin": admin_address(),
            "emails": address(EMAILS_PATH),
            "bulk": address(BULK_PATH),
            "quarantine": address(QUARANTINE_PATH),
            "suspended": address(SUSPENDED_PATH),
            "lint": address(LINT_PATH),
            "token": form_token(request),
            "pause": request.app.state.get("pause"),
            "live": address(LIVE_PATH),
            "processing": address(PROCESSING_PATH),
            "in_table": row_address(table, table_key) if table is not None and has_table else None,
            "is_row": table_key is not None,
            **context,
        },
    )


def actor_of(request: Request[Any, Any, Any], user: Operator) -> Actor:
    """Who acts on a page, for the audit log."""
    return Actor.user(user.id, user.username, request.scope)


def to_sign_in(request: Request[Any, Any, Any]) -> Redirect:
    """The way to the login, for whoever only looks; from there back to the page of the request."""
    return Redirect(sign_in_address(request), status_code=303)


async def acting_operator(request: Request[Any, Any, Any], role: Role = Role.OPERATOR) -> Operator:
    """Who sends a form.

    Args:
        role: what it takes.

    Raises:
        NotAuthorizedException: nobody who has signed in.
        PermissionDeniedException: the form is not one of this session, or the role is too small.
    """
    user = await signed_in(request.scope)
    if user is None:
        raise NotAuthorizedException(
            gettext("sign in at %(address)s to do this", address=sign_in_address())
        )
    check_token(request, await request.form())
    await see_role(request, user, role)
    return user


async def see_role(request: Request[Any, Any, Any], user: Operator, role: Role) -> None:
    """See that who asks has a role; write it down where not.

    Raises:
        PermissionDeniedException: the role is too small.
    """
    if not user.may(role):
        await note_refusal(request, user)
        raise PermissionDeniedException(
            gettext(
                "this takes the role %(role)s, and yours is %(own)s: ask an administrator",
                role=gettext(role),
                own=gettext(user.role),
            )
        )


async def note_refusal(request: Request[Any, Any, Any], user: Operator) -> None:
    """Write down that the role of who asks is too small for what is asked for."""
    actor, on = actor_of(request, user), [request.url.path]
    await write(running_pool(), actor, Act.ROLE_REFUSED, on, result=Result.REFUSED)


def template_config() -> TemplateConfig[JinjaTemplateEngine]:
    """Where the pages' templates are, and what they may call."""
    return TemplateConfig(
        directory=FOLDER / "templates", engine=JinjaTemplateEngine, engine_callback=_equip
    )


def _equip(engine: JinjaTemplateEngine) -> None:
    environment = engine.engine
    environment.add_extension("jinja2.ext.i18n")
    # Line breaks of a template are none of a text.
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(  # type: ignore[attr-defined]
        lambda message: catalogue().gettext(message),
        lambda singular, plural, count: catalogue().ngettext(singular, plural, count),
        newstyle=True,
    )
    environment.filters |= {"translated": gettext, "as_told": as_told}
    environment.globals |= {
        "language": spoken,
        "moment": time_element,
        "moment_text": moment,
        "number": number,
        "decimal": decimal,
    }


def time_element(at: datetime, seconds: bool = False) -> Markup:
    """A time of a page, which its script writes in the reader's zone; the exact one on hover.

    Args:
        seconds: tell them, too.
    """
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), at.isoformat(timespec="seconds"), moment(at, seconds=seconds)
    )


def static_files() -> Router:
    """The styles and scripts. Their addresses change with their content."""
    return create_static_files_router(
        path=STATIC_PATH,
        directories=[*STATIC],
        cache_control=CacheControlHeader(max_age=365 * 86_400, public=True, immutable=True),
    )
