"""The page at which one signs in, whatever leads there."""

import secrets
from typing import Any
from urllib.parse import urlencode

from litestar import Request
from litestar.response import Template

from app.desk.addresses import PROVIDER_PATH, SIGN_IN_PATH, address, file_url
from app.desk.forms import form_token
from app.desk.sign_in_end import FORM_COOKIE, make_cookie
from app.settings import get_settings


def sign_in_form(
    request: Request[Any, Any, Any], back: str, wrong: str | None = None, *, status_code: int = 200
) -> Template:
    """The page, with what went wrong before.

    Args:
        back: where one goes afterwards.
    """
    settings = get_settings()
    made = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)
    answer = Template(
        "sign_in.html",
        context={
            "file": file_url,
            "sign_in": address(SIGN_IN_PATH),
            "token": form_token(request, made),
            "next": back,
            "wrong": wrong,
            "passwords": settings.passwords,
            "provider": settings.oidc_name if settings.oidc_issuer else None,
            "by_provider": f"{address(PROVIDER_PATH)}?{urlencode({'next': back})}",
            "sign_out": f"{address(PROVIDER_PATH)}/out" if "out" in request.query_params else None,
        },
        status_code=status_code,
    )
    answer.set_cookie(make_cookie(FORM_COOKIE, made, same_site="strict"))
    return answer
