"""One's own authenticator app at `/account/second-step`: set up with a QR code, confirmed by a code
of it before it counts, turned off with the password."""

import json
import time
from datetime import timedelta
from typing import Any

import pyotp
import segno
from litestar import Request, get, post
from litestar.exceptions import ClientException, HTTPException
from litestar.response import Redirect, Template

from app.audit.acts import Act
from app.audit.log import in_transaction, write
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import ACCOUNT_PATH, SECOND_STEP_PATH, address
from app.desk.authenticator import (
    ISSUER,
    SECOND_STEP,
    SecondStepKeyError,
    make_recovery_codes,
    recovery_codes_left,
    step_of,
    tidy,
    turn_off,
    turn_on,
)
from app.desk.login_limit import count_code, network, network_of
from app.desk.operators import Operator
from app.desk.pages import PageController, acting_operator, actor_of, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.i18n.texts import N_
from app.i18n.texts import gettext as _
from app.models.operator_account import Role
from app.setting_groups.sign_in import MAKE_A_KEY
from app.settings import get_settings

# How long an app may take to be set up.
SPAN = timedelta(minutes=15)
WRONG_PASSWORD = N_("The password is wrong.")
WRONG_CODE = N_("This is not the code that the app shows now. See that its clock is right.")
LATE = N_("It took too long: begin again.")


class SecondStepPages(PageController):
    """The page, and what is done on it."""

    path = SECOND_STEP_PATH

    @get()
    async def show(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Whether it is on, and the form that changes that."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        return await _page(request, user)

    @post(status_code=200)
    async def do(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """Begin to set it up, confirm it, or turn it off."""
        user = await acting_operator(request, Role.VIEWER)
        form = await request.form()
        network.set(network_of(request.scope))
        action, password = str(form.get("action", "")), str(form.get("password", ""))
        try:
            if action == "confirm":
                pending, code = str(form.get("pending", "")), str(form.get("code", ""))
                return await _confirm(request, user, pending, tidy(code))
            if action not in ("begin", "off"):
                raise ClientException(_("the form names nothing that can be done"))
            if await Operator.login(user.username, password) != user.id:
                return await _page(request, user, wrong=_(WRONG_PASSWORD), status_code=401)
            if action == "begin":
                return await _page(request, user, secret=pyotp.random_base32())
            async with in_transaction(running_pool()) as connection:
                if await turn_off(connection, user.id):
                    await write(connection, actor_of(request, user), Act.SECOND_STEP_OFF, [user.id])
        except HTTPException as error:
            said = f"{error.detail[:1].upper()}{error.detail[1:]}."
            answer = await _page(request, user, wrong=said, status_code=error.status_code)
            answer.headers.update(error.headers or {})
            return answer
        except CANNOT_ASK as error:
            raise database_is_away() from error
        return Redirect(f"{address(ACCOUNT_PATH)}?done=second-step-off", status_code=303)


async def _confirm(
    request: Request[Any, Any, Any], user: Operator, pending: str, code: str
) -> Template:
    """What the form carries was sealed here: it counts from now on if the code is one of it."""
    secret = _open(user, pending)
    if secret is None:
        return await _page(request, user, wrong=_(LATE), status_code=400)
    await count_code(user.id)
    used = step_of(secret, code)
    if used is None:
        return await _page(request, user, secret=secret, wrong=_(WRONG_CODE), status_code=401)
    codes, kept = await make_recovery_codes()
    sealed = SECOND_STEP.encryption_provider.encrypt(secret)
    async with in_transaction(running_pool()) as connection:
        if not await turn_on(connection, user.id, sealed, (used, code), kept):
            raise ClientException(_("it is on already: turn it off first"))
        await write(connection, actor_of(request, user), Act.SECOND_STEP_ON, [user.id])
    return await _page(request, user, codes=codes)


async def _page(
    request: Request[Any, Any, Any],
    user: Operator,
    *,
    secret: str | None = None,
    codes: list[str] | None = None,
    wrong: str | None = None,
    status_code: int = 200,
) -> Template:
    try:
        left = await recovery_codes_left(running_pool(), user.id)
    except CANNOT_ASK as error:
        raise database_is_away() from error
    answer = page(
        request,
        "second_step.html",
        user,
        left=left,
        codes=codes,
        secret=secret,
        qr=None if secret is None else _picture(user, secret),
        pending=None if secret is None else _seal(user, secret),
        mend=None if get_settings().second_step_key else MAKE_A_KEY,
        wrong=wrong,
        here=address(SECOND_STEP_PATH),
    )
    answer.status_code = status_code
    return answer


def _picture(user: Operator, secret: str) -> str:
    """The QR code as an SVG element: it is no file that a browser would keep."""
    uri = pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=ISSUER)
    return segno.make(uri, error="m").svg_inline(omitsize=True, dark="#000", light="#fff")


def _seal(user: Operator, secret: str) -> str:
    """The secret as a form carries it until it is confirmed: nothing is kept of what never is."""
    told = json.dumps([user.id, int(time.time()), secret])
    return SECOND_STEP.encryption_provider.encrypt(told)


def _open(user: Operator, pending: str) -> str | None:
    """The secret of a form; None if it is another user's, or too old."""
    try:
        user_id, at, secret = json.loads(SECOND_STEP.encryption_provider.decrypt(pending))
    except (SecondStepKeyError, ValueError):
        return None
    is_good = user_id == user.id and time.time() - at < SPAN.total_seconds()
    return str(secret) if is_good else None
