"""In which language a page is told: the one that its reader chose, else the first that the browser
asks for and there is. The choice is a cookie, so that it counts before one has signed in, too."""

import asyncio
from typing import Any

from litestar import Controller, Request, post
from litestar.datastructures import Cookie
from litestar.exceptions import ClientException
from litestar.response import Redirect

from app.desk.addresses import ACCOUNT_PATH, LANGUAGE_PATH, address
from app.desk.pages import acting_operator
from app.http.known_hosts import only_known_hosts
from app.i18n.languages import ENGLISH, LANGUAGES, catalogue, speak
from app.i18n.texts import gettext as _
from app.models.operator_account import Role
from app.settings import get_settings

LANGUAGE_COOKIE = "language"
KEPT_SECONDS = 365 * 86_400
# What browsers send is a few hundred characters.
LONGEST_HEADER = 1_000

_read = {ENGLISH}


async def choose_language(request: Request[Any, Any, Any]) -> None:
    """Speak the language of who asks, from here to the end of the answer."""
    chosen = chosen_language(request)
    language = chosen or preferred_language(request.headers.get("accept-language", ""))
    if language not in _read:
        # It takes a quarter of a second, in which webhooks would wait for the event loop.
        await asyncio.to_thread(catalogue, language)
        _read.add(language)
    speak(language)


def chosen_language(request: Request[Any, Any, Any]) -> str | None:
    """The language that was chosen in this browser; None where it is left to the browser."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    return chosen if chosen in LANGUAGES else None


def preferred_language(header: str) -> str:
    """The language of an `Accept-Language` that is wanted most of those there are, else English.

    https://www.rfc-editor.org/rfc/rfc9110#field.accept-language
    """
    wanted: list[tuple[float, str]] = []
    for part in header[:LONGEST_HEADER].split(","):
        name, _sign, weight = part.partition(";")
        language = name.strip().lower().partition("-")[0]
        if language in LANGUAGES:
            wanted.append((_weight(weight), language))
    best, language = max(wanted, key=lambda one: one[0], default=(0.0, ENGLISH))
    return language if best > 0 else ENGLISH


def _weight(text: str) -> float:
    name, _sign, value = text.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


class LanguageForm(Controller):
    """What the form of the account's page sends."""

    include_in_schema = False
    guards = [only_known_hosts]  # noqa: RUF012 - Litestar declares it so

    @post(LANGUAGE_PATH, status_code=303)
    async def change(self, request: Request[Any, Any, Any]) -> Redirect:
        """Keep a language in this browser, or leave it to the browser again."""
        await acting_operator(request, Role.VIEWER)
        chosen = str((await request.form()).get("language", ""))
        answer = Redirect(address(ACCOUNT_PATH), status_code=303)
        if chosen in LANGUAGES:
            answer.set_cookie(
                Cookie(
                    key=LANGUAGE_COOKIE,
                    value=chosen,
                    max_age=KEPT_SECONDS,
                    httponly=True,
                    secure=get_settings().is_production,
                    samesite="lax",
                )
            )
        elif chosen:
            raise ClientException(
                _("language: is one of %(values)s, or empty", values=", ".join(LANGUAGES))
            )
        else:
            answer.delete_cookie(LANGUAGE_COOKIE)
        return answer
