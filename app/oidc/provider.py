"""A provider over HTTP: its discovery document, its keys, and what it says of who comes back from
it. All that goes out goes by the one client that knows whom Mailroom may call."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from http import HTTPMethod
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import structlog

from app.i18n.texts import gettext as _
from app.oidc.attempt import Attempt
from app.oidc.errors import ProviderAwayError, RefusedError
from app.oidc.id_token import Expected, UnknownKeyError, read_id_token
from app.outbound.client import Limits, OutboundClient
from app.outbound.errors import OutboundError
from app.outbound.rules import Rules
from app.settings import Settings

log = structlog.get_logger(__name__)

# https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig
DISCOVERY = "/.well-known/openid-configuration"
# A document is some kilobytes; who signs in waits for it.
LIMITS = Limits(total_seconds=10.0, most_bytes=512 * 1024, silent_seconds=5.0, connect_seconds=5.0)
REMEMBERED_SECONDS = 3_600.0
# Tokens with made-up keys must not have the provider asked each time.
LEAST_PAUSE_SECONDS = 30.0
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@attrs.frozen
class _Known:
    document: Mapping[str, Any]
    keys: Sequence[Mapping[str, Any]]
    at: float


class Provider:
    """The provider of the settings, with what is remembered of it for a while."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        rules = attrs.evolve(Rules.from_settings(settings, hosts=None), most_redirects=0)
        self._client = OutboundClient(rules, LIMITS, ca_file=settings.outbound_ca_file)
        self._known: _Known | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def sign_in_url(self, attempt: Attempt) -> str:
        """Where a browser goes to sign in.

        Raises:
            ProviderAwayError: that is not known.
        """
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": attempt.redirect_uri,
            "scope": " ".join(self._settings.oidc_scopes.split()),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return _with(str((await self._know()).document["authorization_endpoint"]), asked)

    async def sign_out_url(self, back: str) -> str | None:
        """Where a browser goes to sign out at the provider, too; None where it has no such place.

        https://openid.net/specs/openid-connect-rpinitiated-1_0.html

        Raises:
            ProviderAwayError: that is not known.
        """
        endpoint = (await self._know()).document.get("end_session_endpoint")
        if not isinstance(endpoint, str):
            return None
        asked = {"client_id": self._settings.oidc_client_id, "post_logout_redirect_uri": back}
        return _with(endpoint, asked)

    async def claims(self, attempt: Attempt, code: str) -> dict[str, Any]:
        """What the provider says of who came back with a code.

        Raises:
            OidcError: why nothing of it is believed.
        """
        answer = await self._redeem(attempt, code)
        claims = await self._read(str(answer.get("id_token", "")), attempt)
        # Some providers tell groups here alone.
        claim = self._settings.oidc_role_claim
        if self._settings.oidc_roles and claim not in claims and "access_token" in answer:
            claims = {**await self._ask_about(str(answer["access_token"]), claims["sub"]), **claims}
        return claims

    async def look(self) -> int:
        """Ask for the discovery document and the keys. Returns how many keys there are.

        Raises:
            ProviderAwayError: it is not there, or not as it should be.
        """
        self._known = None
        return len((await self._know()).keys)

    async def _read(self, token: str, attempt: Attempt) -> dict[str, Any]:
        settings = self._settings
        expected = Expected(settings.oidc_issuer, settings.oidc_client_id, attempt.nonce)
        known = await self._know()
        try:
            return read_id_token(token, known.keys, expected)
        except UnknownKeyError:
            if time.monotonic() - known.at < LEAST_PAUSE_SECONDS:
                raise
        # It has other keys since.
        self._known = None
        return read_id_token(token, (await self._know()).keys, expected)

    async def _redeem(self, attempt: Attempt, code: str) -> Mapping[str, Any]:
        document, settings = (await self._know()).document, self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        methods = document.get("token_endpoint_auth_methods_supported")
        # What is left out, or is no list, is "client_secret_basic" alone.
        is_basic = not isinstance(methods, list) or "client_secret_basic" in methods
        if settings.oidc_client_secret and is_basic:
            # https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
            pair = (settings.oidc_client_id, settings.oidc_client_secret)
            shown = ":".join(quote(part, safe="") for part in pair)
            headers["authorization"] = f"Basic {base64.b64encode(shown.encode()).decode()}"
        else:
            form["client_id"] = settings.oidc_client_id
            if settings.oidc_client_secret:
                form["client_secret"] = settings.oidc_client_secret
        status, answer = await self._call(
            HTTPMethod.POST, document["token_endpoint"], headers, urlencode(form).encode()
        )
        if status != 200:
            error = _error_code(answer)
            log.warning("oidc_code_refused", status=status, error=error)
            if status in (400, 401, 403) and error != "invalid_grant":
                raise ProviderAwayError(
                    _(
                        "it refuses this Mailroom (%(error)s): see MAILROOM_OIDC_CLIENT_ID and "
                        "MAILROOM_OIDC_CLIENT_SECRET",
                        error=error,
                    )
                )
            raise RefusedError(
                _("it does not take its own code any longer (%(error)s): try again", error=error)
            )
        return answer

    async def _ask_about(self, access_token: str, subject: str) -> Mapping[str, Any]:
        endpoint = (await self._know()).document.get("userinfo_endpoint")
        if not isinstance(endpoint, str):
            return {}
        headers = {"authorization": f"Bearer {access_token}"}
        status, told = await self._call(HTTPMethod.GET, endpoint, headers)
        # https://openid.net/specs/openid-connect-core-1_0.html#UserInfoResponse
        if status != 200 or told.get("sub") != subject:
            raise ProviderAwayError(_("it does not say more of who signs in, as it should"))
        return told

    async def _know(self) -> _Known:
        known = self._known
        if known is not None and time.monotonic() - known.at < REMEMBERED_SECONDS:
            return known
        issuer = self._settings.oidc_issuer
        document = await self._get(issuer.removesuffix("/") + DISCOVERY)
        if document.get("issuer") != issuer:
            raise ProviderAwayError(
                _(
                    "its discovery document names another issuer than MAILROOM_OIDC_ISSUER: copy "
                    "`issuer` from there, a slash at the end included"
                )
            )
        if missing := [one for one in ENDPOINTS if not isinstance(document.get(one), str)]:
            names = ", ".join(missing)
            raise ProviderAwayError(_("its discovery document lacks %(names)s", names=names))
        keys = (await self._get(document["jwks_uri"])).get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise ProviderAwayError(_("it has no set of keys where its discovery document says"))
        self._known = _Known(document, keys, time.monotonic())
        return self._known

    async def _get(self, url: str) -> dict[str, Any]:
        status, answer = await self._call(HTTPMethod.GET, url, {})
        if status != 200:
            raise ProviderAwayError(
                _("it answers %(status)s where its documents should be", status=status)
            )
        return answer

    async def _call(
        self, method: HTTPMethod, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        headers = {"accept": "application/json", **headers}
        try:
            async with self._client.ask(method, url, headers=headers, content=content) as answer:
                body = await answer.read()
                status = answer.status
        except OutboundError as error:
            raise ProviderAwayError(_("it cannot be asked: %(why)s", why=error)) from error
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            if status == 200:
                raise ProviderAwayError(_("it answers with something else than JSON"))
            told = {}
        return status, told


def _with(endpoint: str, parameters: Mapping[str, str]) -> str:
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"


def _error_code(answer: Mapping[str, Any]) -> str:
    """https://www.rfc-editor.org/rfc/rfc6749#section-5.2"""
    code = str(answer.get("error", "no reason"))
    return code[:60] if code.isascii() and code.isprintable() else "no reason"
