"""Signing in by an OpenID Connect provider at `/sign-in/oidc`: the way there, and back."""

import hmac
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import structlog
from litestar import Request, get
from litestar.exceptions import HTTPException, NotFoundException
from litestar.response import Redirect, Template

from app.audit.actors import Actor
from app.audit.log import in_transaction
from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import PROVIDER_PATH, SIGN_IN_PATH, address
from app.desk.identities import find_or_make
from app.desk.login_limit import TooManyAttemptsError, count_way, network, network_of
from app.desk.pages import PageController
from app.desk.people import LastAdminError
from app.desk.return_paths import safe_path
from app.desk.sign_in import database_is_away
from app.desk.sign_in_end import go_on, make_cookie, may_come_in, write_refused
from app.desk.sign_in_form import sign_in_form
from app.desk.sign_in_steps import begin_step, take_step
from app.i18n.texts import gettext as _
from app.models.sign_in_step import Purpose
from app.oidc.attempt import Attempt
from app.oidc.errors import OidcError, ProviderAwayError, RefusedError, UntrustedTokenError
from app.settings import get_settings

if TYPE_CHECKING:
    from app.oidc.provider import Provider

log = structlog.get_logger(__name__)

COOKIE = "sign_in_oidc"
SPAN = timedelta(minutes=15)
BACK, OUT = "/back", "/out"
BY = {"by": "oidc"}


class ProviderPages(PageController):
    """The way to the provider, and back."""

    path = PROVIDER_PATH

    @get()
    async def leave(self, request: Request[Any, Any, Any]) -> Redirect | Template:
        """Go there, to come back to where one was."""
        back = safe_path(request.query_params.get("next", ""))
        attempt = Attempt.begin(f"{_own_origin(request)}{address(PROVIDER_PATH)}{BACK}")
        provider = _provider(request)
        network.set(network_of(request.scope))
        try:
            await count_way()
            url = await provider.sign_in_url(attempt)
            known = {"back": back, "attempt": attrs.asdict(attempt)}
            token = await begin_step(running_pool(), Purpose.PROVIDER, SPAN, known)
        except TooManyAttemptsError as error:
            return _too_many(request, back, error)
        except OidcError as error:
            return _refused(request, back, error)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        answer = Redirect(url, status_code=303)
        answer.set_cookie(make_cookie(COOKIE, token, seconds=int(SPAN.total_seconds())))
        return answer

    @get(BACK)
    async def come_back(self, request: Request[Any, Any, Any]) -> Redirect | Template:
        """See who the provider says it is, and let them in."""
        back, told, provider = address("/"), request.query_params, _provider(request)
        network.set(network_of(request.scope))
        try:
            step = await take_step(
                running_pool(), Purpose.PROVIDER, request.cookies.get(COOKIE, "")
            )
            if step is None:
                # Each leaves an entry in the audit log; those who went there are counted already.
                await count_way()
                raise RefusedError(_("it took too long, or cookies are off: try again"))
            back = step.details["back"]
            attempt = Attempt(**step.details["attempt"])
            _check_answer(told, attempt)
            claims = await provider.claims(attempt, told["code"])
            nobody = Actor.nobody(request.scope)
            async with in_transaction(running_pool()) as connection:
                user_id = await find_or_make(connection, claims, get_settings(), nobody)
            user = await may_come_in(user_id)
            if user is None:
                raise RefusedError(_("you may not sign in here any longer: ask an administrator"))
            answer = await go_on(request, user, back, BY)
        except TooManyAttemptsError as error:
            return _too_many(request, back, error)
        except OidcError as error:
            await write_refused(request, None, {**BY, "error": type(error).__name__})
            return _refused(request, back, error)
        except (LastAdminError, HTTPException) as error:
            await write_refused(request, None, {**BY, "error": type(error).__name__})
            said = error.detail if isinstance(error, HTTPException) else str(error)
            return sign_in_form(request, back, _sentence(said), status_code=403)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        answer.delete_cookie(COOKIE)
        return answer

    @get(OUT)
    async def sign_out(self, request: Request[Any, Any, Any]) -> Redirect | Template:
        """Go to the provider to sign out there, too, if it has a place for that."""
        here = f"{_own_origin(request)}{address(SIGN_IN_PATH)}"
        provider = _provider(request)
        network.set(network_of(request.scope))
        try:
            await count_way()
            url = await provider.sign_out_url(here)
        except TooManyAttemptsError as error:
            return _too_many(request, address("/"), error)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        except OidcError as error:
            return _refused(request, address("/"), error)
        return Redirect(url or here, status_code=303)


def _check_answer(told: Any, attempt: Attempt) -> None:
    """See that an answer is one to this attempt.

    Raises:
        OidcError: it is not, or it is a refusal.
    """
    given = str(told.get("state", "")).encode()
    if not hmac.compare_digest(given, attempt.state.encode()):
        raise UntrustedTokenError(_("its answer is one to another sign-in: try again"))
    # https://www.rfc-editor.org/rfc/rfc9207#section-2.4
    if told.get("iss", get_settings().oidc_issuer) != get_settings().oidc_issuer:
        raise UntrustedTokenError(_("its answer is of another issuer"))
    if "error" in told or not told.get("code"):
        raise RefusedError(_("it did not let you in, or you went away: try again"))


def _refused(request: Request[Any, Any, Any], back: str, error: OidcError) -> Template:
    log.warning("oidc_refused", error=type(error).__name__, reason=str(error))
    status = 502 if isinstance(error, ProviderAwayError) else 403
    said = f"{get_settings().oidc_name}: {error}."
    return sign_in_form(request, back, said, status_code=status)


def _too_many(request: Request[Any, Any, Any], back: str, error: TooManyAttemptsError) -> Template:
    answer = sign_in_form(request, back, _sentence(error.detail), status_code=error.status_code)
    answer.headers.update(error.headers or {})
    return answer


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _own_origin(request: Request[Any, Any, Any]) -> str:
    """As the browser knows it; the provider sends nobody to one that it does not know."""
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


def _provider(request: Request[Any, Any, Any]) -> "Provider":
    if not get_settings().oidc_issuer:
        raise NotFoundException(_("MAILROOM_OIDC_ISSUER is not set: there is no provider"))
    state = request.app.state
    if "provider" not in state:
        # The libraries of ciphers are 9 MiB in each process: only where there is a provider.
        from app.oidc.provider import Provider

        state.provider = Provider(get_settings())
    provider: Provider = state.provider
    return provider
