"""The lint at `/lint`: a template or a payload is typed in; what is wrong with it stands beside."""

import asyncio
from typing import Any

from litestar import Request, get, post
from litestar.response import Redirect, Template

from app.desk.addresses import LINT_PATH
from app.desk.pages import PageController, acting_operator, page, to_sign_in
from app.desk.sign_in import signed_in
from app.models.operator_account import Role
from app.zendesk.lint.lint import lint
from app.zendesk.template import TEMPLATE

LONGEST = 256 * 1024
# A form writes a byte as three characters at worst.
LARGEST_FORM = 3 * LONGEST + 4096


class LintPage(PageController):
    """The form, and what was found."""

    path = LINT_PATH

    @get()
    async def show(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """The form with the template that Mailroom's own set-up makes."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return page(request, "lint.html", user, text=TEMPLATE, report=None)

    @post(request_max_body_size=LARGEST_FORM, status_code=200)
    async def look(self, request: Request[Any, Any, Any]) -> Template:
        """What is wrong with a text. Nothing is kept."""
        user = await acting_operator(request, Role.VIEWER)
        form = await request.form()
        # Browsers send line breaks as CR LF, whatever they were.
        text = str(form.get("text", "")).replace("\r\n", "\n")
        report = await asyncio.to_thread(lint, text.encode("utf-8", "replace"))
        return page(request, "lint.html", user, text=text, report=report)
