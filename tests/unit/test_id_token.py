"""Which ID tokens are believed, by their keys; what they say is tried with a real provider."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from app.oidc.errors import UntrustedTokenError
from app.oidc.id_token import Expected, UnknownKeyError, read_id_token

ISSUER, CLIENT, NONCE = "https://login.example.com", "mailroom", "once"
EXPECTED = Expected(ISSUER, CLIENT, NONCE)
RSA, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def public(key: Any, algorithm: str = "RS256", **others: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm)
    return {**made.to_jwk(key.public_key(), as_dict=True), **others}  # type: ignore[call-arg]


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = None, **others: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": CLIENT, "sub": "7", "nonce": NONCE, "iat": now, "exp": now + 60}
    return jwt.encode({**claims, **others}, key, algorithm, {"kid": kid} if kid else None)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "RS512"), (RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA")],
)
def test_by_whatever_only_the_provider_can_sign(key: Any, algorithm: str) -> None:
    keys = [public(OTHER, kid="a"), public(key, algorithm, kid="b")]
    for kid in ("b", None):
        assert read_id_token(token(key, algorithm, kid), keys, EXPECTED)["sub"] == "7"


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [public(OTHER)],
        [public(OTHER, kid="b")],
        [public(RSA, kid="a")],
        [public(RSA, kid="b", use="enc")],
        [public(RSA, kid="b", alg="PS256")],
        [public(EC, "ES256", kid="b")],
        [{"kty": "RSA", "kid": "b"}],
        [{"kid": "b"}],
    ],
)
def test_by_no_key_that_is_not_meant(keys: list[dict[str, Any]]) -> None:
    with pytest.raises(UnknownKeyError, match="none of its keys"):
        read_id_token(token(kid="b"), keys, EXPECTED)


@pytest.mark.parametrize(
    "secret", ["s" * 32, str(public(RSA)["n"])], ids=["a password", "their public key"]
)
def test_never_by_a_secret(secret: str) -> None:
    keys = [{"kty": "oct", "k": "cw"}, public(RSA)]
    with pytest.raises(UntrustedTokenError, match="not signed by a method that is believed"):
        read_id_token(token(secret, "HS256"), keys, EXPECTED)


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "..", "ey.ey.ey", "é.é.é"])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(UntrustedTokenError):
        read_id_token(text, [public(RSA)], EXPECTED)


def test_a_token_for_several_says_for_whom() -> None:
    keys = [public(RSA)]
    both = [CLIENT, "another"]
    assert read_id_token(token(aud=both, azp=CLIENT), keys, EXPECTED)
    assert read_id_token(token(aud=[CLIENT]), keys, EXPECTED)
    for others in ({}, {"azp": "another"}):
        with pytest.raises(UntrustedTokenError, match="another party"):
            read_id_token(token(aud=both, **others), keys, EXPECTED)


@pytest.mark.parametrize("claims", [{"exp": "soon"}, {"iat": "x"}, {"sub": 7}, {"sub": "x" * 256}])
def test_what_is_of_another_type(claims: dict[str, Any]) -> None:
    with pytest.raises(UntrustedTokenError):
        read_id_token(token(**claims), [public(RSA)], EXPECTED)
