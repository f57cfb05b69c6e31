"""Whether an ID token is to be believed: a pure decision on the token, the provider's keys and the
time. https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import attrs
import jwt

from app.i18n.texts import gettext as _
from app.models.operator_identity import LONGEST_SUBJECT
from app.oidc.errors import UntrustedTokenError

# Signatures that only the provider can make. With `none` there is none; with HS256 the client makes
# it as well, and who can choose between the two uses a public key as a secret.
ALGORITHMS = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }
)
CLOCK_SKEW = timedelta(seconds=60)
REQUIRED = ["iss", "sub", "aud", "exp", "iat"]


class UnknownKeyError(UntrustedTokenError):
    """It is signed by a key that is not among the provider's; they may have others by now."""


@attrs.frozen
class Expected:
    """What a token has to say."""

    issuer: str
    client_id: str
    nonce: str


def read_id_token(
    token: str, keys: Sequence[Mapping[str, Any]], expected: Expected
) -> dict[str, Any]:
    """The claims of an ID token.

    Args:
        keys: of the provider, as its key set (JWKS) has them.

    Raises:
        UnknownKeyError: none of the keys is meant.
        UntrustedTokenError: says what is wrong with it.
    """
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise UntrustedTokenError(_("its ID token cannot be read")) from error
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise UntrustedTokenError(
            _(
                "its ID token is not signed by a method that is believed: have it sign with RS256 "
                "or ES256"
            )
        )
    last_error: jwt.PyJWTError | None = None
    for key in _keys_of(header, algorithm, keys):
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                jwt.PyJWK({**key}, algorithm=algorithm),
                algorithms=[algorithm],
                issuer=expected.issuer,
                audience=expected.client_id,
                leeway=CLOCK_SKEW,
                options={"require": REQUIRED},
            )
        except (jwt.InvalidSignatureError, jwt.PyJWKError, jwt.InvalidKeyError) as error:
            last_error = error
        except jwt.InvalidTokenError as error:
            raise UntrustedTokenError(
                _("its ID token is not right: %(reason)s", reason=_reason(error))
            ) from error
        else:
            _check_the_rest(claims, expected)
            return claims
    raise UnknownKeyError(_("its ID token is signed by none of its keys")) from last_error


def _keys_of(
    header: Mapping[str, Any], algorithm: str, keys: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    return [
        key
        for key in keys
        if key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and ("kid" not in header or key.get("kid") == header["kid"])
    ]


def _check_the_rest(claims: Mapping[str, Any], expected: Expected) -> None:
    # A token for several has to say for whom of them it was made.
    is_for_us_alone = claims["aud"] in (expected.client_id, [expected.client_id])
    if claims.get("azp", expected.client_id if is_for_us_alone else None) != expected.client_id:
        raise UntrustedTokenError(_("its ID token is for another party"))
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), expected.nonce.encode()):
        raise UntrustedTokenError(_("its ID token is of another sign-in"))
    subject = claims["sub"]
    if not subject or len(subject) > LONGEST_SUBJECT:
        raise UntrustedTokenError(_("its ID token does not say who somebody is"))


def _reason(error: jwt.InvalidTokenError) -> str:
    # The texts of some errors quote the token.
    return {
        jwt.ExpiredSignatureError: _("it is too old, or a clock is wrong"),
        jwt.ImmatureSignatureError: _("it is of the future, or a clock is wrong"),
        jwt.InvalidIssuerError: _("another issuer than MAILROOM_OIDC_ISSUER made it"),
        jwt.InvalidAudienceError: _("it is for another client than MAILROOM_OIDC_CLIENT_ID"),
        jwt.MissingRequiredClaimError: _("it lacks one of %(claims)s", claims=", ".join(REQUIRED)),
    }.get(type(error), type(error).__name__)
