"""Signing in at `/sign-in`. The session is Piccolo's: Piccolo Admin is open with it, too."""

from typing import Any

from litestar import Request, get, post
from litestar.exceptions import HTTPException, PermissionDeniedException
from litestar.response import Redirect, Template

from app.database.errors import CANNOT_ASK
from app.desk.addresses import SIGN_IN_PATH
from app.desk.forms import check_token
from app.desk.login_limit import network, network_of
from app.desk.operators import Operator
from app.desk.pages import PageController
from app.desk.return_paths import safe_path
from app.desk.sign_in import database_is_away, signed_in
from app.desk.sign_in_end import FORM_COOKIE, go_on, may_come_in, write_refused
from app.desk.sign_in_form import sign_in_form
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.fit import fit_text

WRONG = N_("The name or the password is wrong.")
LATE = N_("It took too long, or something changed meanwhile: sign in again.")


class SignInPages(PageController):
    """The form, and what is done with it."""

    @get(SIGN_IN_PATH)
    async def show(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """The form; whoever has signed in goes on at once."""
        back = safe_path(request.query_params.get("next", ""))
        if await signed_in(request.scope) is not None:
            return Redirect(back, status_code=303)
        return sign_in_form(request, back, _(LATE) if "late" in request.query_params else None)

    @post(SIGN_IN_PATH, status_code=200)
    async def enter(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Sign in with a name and a password, and go back."""
        form = await request.form()
        back = safe_path(str(form.get("next", "")))
        if not request.cookies.get(FORM_COOKIE):
            wrong = _("The form was too old, or cookies are off: try again.")
            return sign_in_form(request, back, wrong)
        try:
            check_token(request, form, FORM_COOKIE)
        except PermissionDeniedException:
            return sign_in_form(request, back, _("The form was too old: try again."))
        name = fit_text(str(form.get("username", "")))
        password = str(form.get("password", ""))
        network.set(network_of(request.scope))
        try:
            user = await _let_in(name, password)
            if user is None:
                # What is typed there by mistake may be a password: only names that exist are kept.
                is_known = await Operator.exists().where(Operator.username == name)
                await write_refused(request, name if is_known else None)
                return sign_in_form(request, back, _(WRONG), status_code=401)
            return await go_on(request, user, back, {"by": "password"})
        except HTTPException as error:
            said = f"{error.detail[:1].upper()}{error.detail[1:]}."
            answer = sign_in_form(request, back, said, status_code=error.status_code)
            answer.headers.update(error.headers or {})
            return answer
        except CANNOT_ASK as error:
            raise database_is_away() from error


async def _let_in(name: str, password: str) -> Operator | None:
    user_id = await Operator.login(name, password)
    if user_id is None:
        return None
    # Whoever may not come in any longer is told no more than a stranger.
    return await may_come_in(user_id)
