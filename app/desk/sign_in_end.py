"""How a sign-in goes on where somebody has shown who they are: by a code, where they have an
authenticator app, and then by a session. The session is Piccolo's: it opens Piccolo Admin, too.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from litestar import Request
from litestar.datastructures import Cookie
from litestar.response import Redirect
from piccolo_api.session_auth.tables import SessionsBase

from app.audit.actors import Actor
from app.audit.acts import Act
from app.audit.log import write
from app.database.engine import running_pool
from app.desk.addresses import CODE_PATH, address
from app.desk.authenticator import SECOND_STEP
from app.desk.forms import SESSION_COOKIE
from app.desk.operators import Operator
from app.desk.pages import actor_of
from app.desk.people import LONGEST_SESSION, SESSION_SPAN, local_now
from app.desk.sign_in_steps import Step, begin_step
from app.models.audit_entry import Result
from app.models.sign_in_step import Purpose
from app.settings import get_settings

# What ties the form to the browser that it was given to: nobody can have another sign in as them.
FORM_COOKIE = "sign_in"
CODE_COOKIE = "sign_in_code"
CODE_SPAN = timedelta(minutes=5)


async def go_on(
    request: Request[Any, Any, Any], user: Operator, back: str, details: Mapping[str, Any]
) -> Redirect:
    """What comes after a user has shown who they are: the page that asks for a code, or where they
    were.

    Args:
        back: where they were.
        details: of how they did, for the audit log.
    """
    if not await SECOND_STEP.is_user_enrolled(user):
        return await begin_session(request, user, back, details)
    known = {"by": dict(details), "password": _trace_of_password(user)}
    token = await begin_step(running_pool(), Purpose.CODE, CODE_SPAN, known, user_id=user.id)
    answer = Redirect(f"{address(CODE_PATH)}?{urlencode({'next': back})}", status_code=303)
    answer.set_cookie(make_cookie(CODE_COOKIE, token, seconds=int(CODE_SPAN.total_seconds())))
    return answer


async def user_of(step: Step) -> Operator | None:
    """Whose step it is; None if they may not come in any longer, or have another password since."""
    user = await may_come_in(step.user_id)
    return user if user and _trace_of_password(user) == step.details["password"] else None


async def may_come_in(user_id: int | None) -> Operator | None:
    """The user of an id, if they may sign in."""
    user = await Operator.objects().where(Operator.id == user_id).first()
    return user if user is not None and user.active and user.admin else None


async def begin_session(
    request: Request[Any, Any, Any], user: Operator, back: str, details: Mapping[str, Any]
) -> Redirect:
    """A session that nobody knew before, in the place of the one that the browser had."""
    if before := request.cookies.get(SESSION_COOKIE):
        await SessionsBase.remove_session(before)
    now = local_now()
    session = await SessionsBase.create_session(
        user.id, expiry_date=now + SESSION_SPAN, max_expiry_date=now + LONGEST_SESSION
    )
    actor, pool = actor_of(request, user), running_pool()
    await write(pool, actor, Act.SIGN_IN, [user.username], details=details or None)
    answer = Redirect(back, status_code=303)
    answer.set_cookie(
        make_cookie(SESSION_COOKIE, session.token, seconds=int(LONGEST_SESSION.total_seconds()))
    )
    answer.delete_cookie(FORM_COOKIE)
    return answer


async def write_refused(
    request: Request[Any, Any, Any],
    name: str | None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down that nobody was let in, and as whom, if there is such a user."""
    on = [name] if name is not None else []
    nobody = Actor.nobody(request.scope)
    await write(running_pool(), nobody, Act.SIGN_IN, on, result=Result.REFUSED, details=details)


def make_cookie(
    name: str, value: str, *, seconds: int | None = None, same_site: Any = "lax"
) -> Cookie:
    """A cookie that no script reads, in production for https alone."""
    return Cookie(
        key=name,
        value=value,
        max_age=seconds,
        httponly=True,
        secure=get_settings().is_production,
        samesite=same_site,
    )


def _trace_of_password(user: Operator) -> str:
    return hashlib.sha256(user.password.encode()).hexdigest()
