"""A real OpenID Connect provider on loopback: `oidc_provider_mock`, which is Authlib's server, over
HTTP. What it says can be changed before it is signed, as one would that is broken or hostile."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import flask
import httpx
import jwt
import oidc_provider_mock
import werkzeug.serving
from authlib.jose import RSAKey

# It speaks http, which Authlib's server takes for a mistake. This very process is the provider.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"


@attrs.define
class RunningProvider:
    """The provider, and what it was asked."""

    issuer: str
    asked: list[tuple[str, dict[str, str]]] = attrs.Factory(list)
    """Paths with their parameters."""
    change: Callable[[dict[str, Any]], object] = lambda claims: None
    """Changes the claims of ID tokens before they are signed."""
    sign: Callable[[dict[str, Any], Mapping[str, Any]], str] | None = None
    """Signs them in another way, by the provider's private key (JWK)."""
    document: dict[str, Any] = attrs.Factory(dict)
    """What stands in its discovery document instead."""
    text: str | None = None
    """What it answers to all that ask, instead."""
    _has_old_key: bool = False

    def know(self, subject: str, **claims: Any) -> None:
        """Have somebody be known there."""
        httpx.put(f"{self.issuer}/users/{subject}", json=claims).raise_for_status()

    def register(self, redirect_uri: str) -> dict[str, str]:
        """Register a client. Returns the settings that name it."""
        made = httpx.post(f"{self.issuer}/oauth2/clients", json={"redirect_uris": [redirect_uri]})
        client = made.raise_for_status().json()
        return {
            "MAILROOM_OIDC_ISSUER": self.issuer,
            "MAILROOM_OIDC_CLIENT_ID": client["client_id"],
            "MAILROOM_OIDC_CLIENT_SECRET": client["client_secret"],
            "MAILROOM_OUTBOUND_OPEN_LOOPBACK": "true",
        }

    def change_key(self) -> None:
        """Sign with another key from now on."""
        self._has_old_key = True

    def reset(self) -> None:
        """Be as good as at first."""
        self.asked.clear()
        self.document.clear()
        self.change, self.sign, self.text = (lambda claims: None), None, None

    def _observe(self) -> None:
        given = {**flask.request.args.to_dict(), **flask.request.form.to_dict()}
        self.asked.append((flask.request.path, given))
        if self._has_old_key:
            flask.g.oidc_provider_mock_storage.jwk = RSAKey.generate_key(is_private=True)
            self._has_old_key = False

    def _answer(self, answer: flask.Response) -> flask.Response:
        path = flask.request.path
        if self.text is not None:
            answer.set_data(self.text)
            return answer
        if path.endswith("/openid-configuration") and self.document:
            answer.set_data(flask.json.dumps({**answer.get_json(), **self.document}))
        if path == "/oauth2/token" and answer.status_code == 200:
            told = answer.get_json()
            key = flask.g.oidc_provider_mock_storage.jwk.as_dict(is_private=True)
            claims = jwt.decode(told["id_token"], options={"verify_signature": False})
            self.change(claims)
            sign = self.sign or sign_as_ever
            answer.set_data(flask.json.dumps({**told, "id_token": sign(claims, key)}))
        return answer


def sign_as_ever(claims: dict[str, Any], key: Mapping[str, Any]) -> str:
    """By RS256, with the id of the key."""
    headers = {"kid": key["kid"]} if "kid" in key else None
    return jwt.encode(claims, jwt.PyJWK({**key}).key, "RS256", headers)


@contextlib.contextmanager
def running_provider() -> Iterator[RunningProvider]:
    """Lend a provider."""
    app = oidc_provider_mock.app(require_client_registration=True)
    server = werkzeug.serving.make_server("localhost", 0, app, threaded=True)
    provider = RunningProvider(f"http://localhost:{server.server_port}")
    app.before_request(provider._observe)
    app.after_request(provider._answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
