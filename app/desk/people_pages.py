"""Users at `/people`, for administrators: what each may do, and their sessions. One's own sessions
at `/account`."""

from typing import Any

from litestar import Request, get, post
from litestar.exceptions import ClientException, HTTPException, NotFoundException
from litestar.response import Redirect, Template
from piccolo_api.session_auth.tables import SessionsBase

from app.audit.acts import Act
from app.audit.log import in_transaction, result_of, write
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import (
    ACCOUNT_PATH,
    LANGUAGE_PATH,
    PEOPLE_PATH,
    SECOND_STEP_PATH,
    SIGN_IN_PATH,
    address,
)
from app.desk.authenticator import turn_off
from app.desk.forms import SESSION_COOKIE
from app.desk.language import chosen_language
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, page, see_role, to_sign_in
from app.desk.people import (
    SET_ROLE,
    LastAdminError,
    end_sessions,
    keeping_an_admin,
    list_people,
    list_sessions,
)
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.languages import LANGUAGES
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.operator_account import Role
from app.settings import get_settings

DONE = {
    "role": N_("The role is changed."),
    "end": N_("The sessions are ended."),
    "reset-second-step": N_("No code is asked for any longer."),
    "second-step-off": N_("The second step is off."),
}


class PeoplePages(PageController):
    """The users, and one's own account."""

    @get(PEOPLE_PATH)
    async def list_all(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """The users, by name."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        await see_role(request, user, Role.ADMIN)
        try:
            people = await list_people(running_pool())
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return page(
            request,
            "people.html",
            user,
            table=Operator,
            people=people,
            roles=list(Role),
            own_id=user.id,
            here=address(PEOPLE_PATH),
            done=_done(request),
        )

    @post(PEOPLE_PATH, status_code=303)
    async def change(self, request: Request[Any, Any, Any]) -> Redirect:
        """Give a user another role, end their sessions, or reset their second step."""
        user = await acting_operator(request, Role.ADMIN)
        form = await request.form()
        action, user_id = str(form.get("action", "")), _number(form.get("user"))
        try:
            if action == "end":
                await _end_all(request, user, user_id)
            elif action == "role":
                await _set_role(request, user, user_id, str(form.get("role", "")))
            elif action == "reset-second-step":
                await _reset_second_step(request, user, user_id)
            else:
                raise ClientException(_("the form names nothing that can be done"))
        except LastAdminError as error:
            raise HTTPException(status_code=409, detail=str(error)) from error
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return Redirect(f"{address(PEOPLE_PATH)}?done={action}", status_code=303)

    @get(ACCOUNT_PATH)
    async def account(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """One's own sessions."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        token = request.cookies.get(SESSION_COOKIE, "")
        try:
            sessions = await list_sessions(running_pool(), user, token)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return page(
            request,
            "account.html",
            user,
            sessions=sessions,
            languages=LANGUAGES,
            chosen_language=chosen_language(request),
            language_form=address(LANGUAGE_PATH),
            second_step=address(SECOND_STEP_PATH),
            here=address(ACCOUNT_PATH),
            done=_done(request),
        )

    @post(ACCOUNT_PATH, status_code=303)
    async def end(self, request: Request[Any, Any, Any]) -> Redirect:
        """Sign out, or end one of one's own other sessions, or all of them."""
        user = await acting_operator(request, Role.VIEWER)
        form = await request.form()
        which, token = str(form.get("session", "")), request.cookies[SESSION_COOKIE]
        actor, pool = actor_of(request, user), running_pool()
        try:
            if which == "this":
                await SessionsBase.remove_session(token)
                await write(pool, actor, Act.SIGN_OUT, [user.username])
                out = "?out" if get_settings().oidc_issuer else ""
                gone = Redirect(f"{address(SIGN_IN_PATH)}{out}", status_code=303)
                gone.delete_cookie(SESSION_COOKIE)
                return gone
            async with in_transaction(pool) as connection:
                if which == "others":
                    ended = await end_sessions(connection, user.id, keep=token)
                else:
                    ended = await end_sessions(connection, user.id, session_id=_number(which))
                await write(connection, actor, Act.SESSIONS_END, [user.id], count=ended)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return Redirect(f"{address(ACCOUNT_PATH)}?done=end", status_code=303)


def _done(request: Request[Any, Any, Any]) -> str | None:
    done = DONE.get(request.query_params.get("done", ""))
    return _(done) if done else None


def _number(given: object) -> int:
    text = str(given)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ClientException(_("the form names nobody and nothing that there is"))
    return int(text)


async def _end_all(request: Request[Any, Any, Any], user: Operator, user_id: int) -> None:
    async with in_transaction(running_pool()) as connection:
        ended = await end_sessions(connection, user_id)
        actor = actor_of(request, user)
        await write(connection, actor, Act.SESSIONS_END, [user_id], count=ended)


async def _reset_second_step(request: Request[Any, Any, Any], user: Operator, user_id: int) -> None:
    async with in_transaction(running_pool()) as connection:
        result = result_of(await turn_off(connection, user_id))
        actor = actor_of(request, user)
        await write(connection, actor, Act.SECOND_STEP_RESET, [user_id], result=result)


async def _set_role(
    request: Request[Any, Any, Any], user: Operator, user_id: int, name: str
) -> None:
    if name not in list(Role):
        raise ClientException(
            _("there is no role %(name)s: take %(roles)s", name=name[:20], roles=", ".join(Role))
        )
    async with in_transaction(running_pool()) as connection:
        if not await Operator.exists().where(Operator.id == user_id):
            raise NotFoundException(_("there is no user %(id)s", id=user_id))
        with keeping_an_admin():
            await connection.execute(SET_ROLE, user_id, name)
        details = {"role": name}
        await write(connection, actor_of(request, user), Act.USER_ROLE, [user_id], details=details)
