"""How people sign in: passwords, the second step, OpenID Connect."""

import base64
import binascii
from typing import Annotated, Self
from urllib.parse import urlsplit

import attrs
from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from app.setting_groups.group import SettingGroup, split

KEY_BYTES = 32
MAKE_A_KEY = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)
ROLES = ("viewer", "operator", "admin")


@attrs.frozen
class RoleRule:
    """Who has a role, by what a provider says of them."""

    role: str
    value: str
    """Of the claim, such as a group's name."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `role=value`.

        Raises:
            ValueError: it is none.
        """
        role, _, value = (part.strip() for part in text.partition("="))
        if role not in ROLES or not value:
            raise ValueError(f"{text!r}: write `role=group`, with a role of {', '.join(ROLES)}")
        return cls(role, value)


class SignInSettings(SettingGroup):
    """What people have to show."""

    passwords: bool = True
    """Whether people may sign in with a name and a password. `false` takes an OpenID Connect
    provider; set it back where that is away for long."""

    second_step_key: str = Field(default="", repr=False)
    """Encrypts in the database what people's authenticator apps know; nobody can set one up without
    it. 32 bytes as URL-safe base64, kept as long as codes shall be good."""

    oidc_issuer: str = ""
    """Issuer of the OpenID Connect provider that people may sign in with, as its discovery document
    has it, such as `https://login.example.com`. Empty: none."""

    oidc_client_id: str = ""
    """What the provider calls this Mailroom."""

    oidc_client_secret: str = Field(default="", repr=False)
    """What Mailroom shows the provider. Empty: it is registered as a public client."""

    oidc_name: str = "OpenID Connect"
    """How people call the provider, for the button of the sign-in page."""

    oidc_scopes: str = "openid profile email"
    """What is asked of the provider, separated by spaces; `openid` has to be among it."""

    oidc_makes_people: bool = False
    """Whether whoever the provider vouches for becomes a user here at the first sign-in. If not, an
    administrator connects users by `mailroom user link`."""

    oidc_role_claim: str = "groups"
    """Claim of which `MAILROOM_OIDC_ROLES` speaks: a text or a list of them."""

    oidc_roles: Annotated[tuple[RoleRule, ...], NoDecode] = ()
    """Roles by that claim, comma-separated, such as `admin=it, operator=support, viewer=sales`. The
    greatest counts, at each sign-in; who has none is not let in. Empty: roles are given here, and
    who is new is a viewer."""

    @field_validator("second_step_key")
    @classmethod
    def _refuse_what_is_no_key(cls, value: str) -> str:
        try:
            is_key = not value or len(base64.urlsafe_b64decode(value)) == KEY_BYTES
        except (binascii.Error, ValueError):
            is_key = False
        if not is_key:
            raise ValueError(
                f"has to be {KEY_BYTES} bytes as URL-safe base64: make one with `{MAKE_A_KEY}`"
            )
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _refuse_what_is_no_issuer(cls, value: str) -> str:
        # https://openid.net/specs/openid-connect-core-1_0.html#IssuerIdentifier
        parts = urlsplit(value)
        is_url = parts.scheme in ("https", "http") and parts.netloc
        if value and (not is_url or parts.query or parts.fragment):
            raise ValueError(
                "has to be a URL such as `https://login.example.com`, without a query: copy "
                "`issuer` from the provider's /.well-known/openid-configuration"
            )
        return value

    @field_validator("oidc_scopes")
    @classmethod
    def _refuse_to_ask_for_no_identity(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("lacks `openid`: without it the provider does not say who somebody is")
        return value

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _split_roles(cls, value: object) -> object:
        return tuple(map(RoleRule.parse, split(value))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_the_provider(self) -> Self:
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError(
                "MAILROOM_OIDC_CLIENT_ID is missing: it is what the provider calls this Mailroom"
            )
        if not self.passwords and not self.oidc_issuer:
            raise ValueError(
                "MAILROOM_PASSWORDS is off and MAILROOM_OIDC_ISSUER is not set, so nobody could "
                "sign in: set one of the two"
            )
        return self
