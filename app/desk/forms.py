"""What makes a form of the desk one of its own: a token of the session, which another site can
neither read nor guess."""

import hashlib
import hmac
from typing import Any

from litestar import Request
from litestar.datastructures import FormMultiDict
from litestar.exceptions import PermissionDeniedException

from app.i18n.texts import gettext as _

SESSION_COOKIE = "id"


def form_token(request: Request[Any, Any, Any], secret: str | None = None) -> str:
    """What a form of this session carries.

    Args:
        secret: what only this browser and we know, where there is no session yet.
    """
    session = request.cookies.get(SESSION_COOKIE, "") if secret is None else secret
    return hashlib.sha256(f"mailroom form {session}".encode()).hexdigest()


def check_token(
    request: Request[Any, Any, Any], form: FormMultiDict, cookie: str = SESSION_COOKIE
) -> None:
    """See that a form is one of this session.

    Args:
        cookie: the name of the one that has the secret.

    Raises:
        PermissionDeniedException: it is not.
    """
    given = str(form.get("token", "")).encode()
    if not hmac.compare_digest(
        given, form_token(request, request.cookies.get(cookie, "")).encode()
    ):
        raise PermissionDeniedException(
            _("the form is not one of this session: open the page again and send it from there")
        )
