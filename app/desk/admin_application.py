"""Piccolo Admin itself, made for a role: it is loaded when somebody asks for it."""

from typing import Any

from litestar.types import ASGIApp
from piccolo_admin.endpoints import create_admin
from piccolo_api.rate_limiting.middleware import RateLimitProvider
from piccolo_api.session_auth.tables import SessionsBase

from app.desk import authenticator
from app.desk.admin_audit import audited
from app.desk.admin_mount import guarded
from app.desk.admin_page import with_ours
from app.desk.admin_roles import ONLY_LOOK
from app.desk.admin_tables import tables_of
from app.desk.operators import Operator
from app.models.operator_account import Role
from app.settings import Settings


class _NoLimit(RateLimitProvider):
    """Piccolo Admin's own limit counts in one process alone. Ours is in `Operator.login`."""

    def increment(self, identifier: str) -> None:
        pass


def make_for(role: Role, settings: Settings) -> ASGIApp:
    """Piccolo Admin as a role sees it: with the users for superusers, without them for others."""
    sees_bodies = role is not Role.VIEWER or settings.viewers_see_bodies
    tables = tables_of(role, sees_bodies=sees_bodies)
    made: Any = create_admin(
        tables,
        read_only=role is Role.VIEWER,
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
