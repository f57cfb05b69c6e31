"""The second step of a sign-in at `/sign-in/code`: the code of an authenticator app."""

from typing import Any
from urllib.parse import urlencode

from litestar import Request, get, post
from litestar.exceptions import HTTPException, PermissionDeniedException
from litestar.response import Redirect, Template

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import CODE_PATH, SIGN_IN_PATH, address, file_url
from app.desk.authenticator import SECOND_STEP, is_recovery_code
from app.desk.forms import check_token, form_token
from app.desk.login_limit import count_attempt, network, network_of
from app.desk.pages import PageController
from app.desk.return_paths import safe_path
from app.desk.sign_in import database_is_away
from app.desk.sign_in_end import CODE_COOKIE, begin_session, user_of, write_refused
from app.desk.sign_in_steps import look_at_step, take_step
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.sign_in_step import Purpose

WRONG = N_("The code is wrong, or was used already: type the next one that the app shows.")


class CodePage(PageController):
    """The form, and what is done with it."""

    path = CODE_PATH

    @get()
    async def show(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """The form, for whoever has shown a password."""
        back = safe_path(request.query_params.get("next", ""))
        try:
            step = await look_at_step(running_pool(), Purpose.CODE, _token(request))
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return _form(request, back) if step else _from_the_beginning(back)

    @post(status_code=200)
    async def enter(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Sign in by a code, and go back."""
        form = await request.form()
        back, code = safe_path(str(form.get("next", ""))), str(form.get("code", ""))
        pool, token = running_pool(), _token(request)
        network.set(network_of(request.scope))
        try:
            check_token(request, form, CODE_COOKIE)
            step = await look_at_step(pool, Purpose.CODE, token)
            user = None if step is None else await user_of(step)
            if step is None or user is None:
                return _from_the_beginning(back)
            await count_attempt()
            how = {"second_step": "recovery code" if is_recovery_code(code) else "code"}
            if not await SECOND_STEP.authenticate_user(user, code):
                await write_refused(request, user.username, how)
                return _form(request, back, _(WRONG), status_code=401)
            await take_step(pool, Purpose.CODE, token)
            answer = await begin_session(request, user, back, {**step.details["by"], **how})
        except PermissionDeniedException:
            return _from_the_beginning(back)
        except HTTPException as error:
            said = f"{error.detail[:1].upper()}{error.detail[1:]}."
            refused = _form(request, back, said, status_code=error.status_code)
            refused.headers.update(error.headers or {})
            return refused
        except CANNOT_ASK as error:
            raise database_is_away() from error
        answer.delete_cookie(CODE_COOKIE)
        return answer


def _token(request: Request[Any, Any, Any]) -> str:
    return request.cookies.get(CODE_COOKIE, "")


def _from_the_beginning(back: str) -> Redirect:
    query = urlencode({"next": back, "late": ""})
    return Redirect(f"{address(SIGN_IN_PATH)}?{query}", status_code=303)


def _form(
    request: Request[Any, Any, Any], back: str, wrong: str | None = None, *, status_code: int = 200
) -> Template:
    return Template(
        "sign_in_code.html",
        context={
            "file": file_url,
            "here": address(CODE_PATH),
            "again": f"{address(SIGN_IN_PATH)}?{urlencode({'next': back})}",
            "token": form_token(request, _token(request)),
            "next": back,
            "wrong": wrong,
        },
        status_code=status_code,
    )
