"""The way at `/rows/{table}?key=` from a row of Piccolo Admin to its page at the desk."""

from typing import Any

from litestar import Request, get
from litestar.exceptions import NotFoundException
from litestar.response import Redirect

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import ROWS_PATH
from app.desk.admin_roles import table_names
from app.desk.pages import PageController, see_role, to_sign_in
from app.desk.row_ways import WAYS, find_page
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.texts import gettext as _
from app.models.operator_account import Role


class RowPages(PageController):
    """The way."""

    path = ROWS_PATH

    @get("/{table:str}")
    async def lead(self, request: Request[Any, Any, Any], table: str, key: str) -> Redirect:
        """Lead to the page of a row."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        way = WAYS.get(table)
        if way is None:
            raise NotFoundException(
                _("there is no table %(name)s with pages at the desk", name=table[:60])
            )
        if table not in table_names(Role.OPERATOR, sees_bodies=True):
            await see_role(request, user, Role.ADMIN)
        try:
            page = await find_page(running_pool(), way, key)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        if page is None:
            raise NotFoundException(
                _("there is no row %(key)s in %(name)s", key=key[:60], name=table)
            )
        return Redirect(page, status_code=303)
