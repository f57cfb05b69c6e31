"""The `sign_in_steps` table: sign-ins that have begun and wait for their next step."""

from enum import StrEnum

from piccolo.columns import JSONB, Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class Purpose(StrEnum):
    """What is waited for."""

    CODE = "code"
    """The code of an authenticator app: the password was right."""

    PROVIDER = "provider"
    """What an OpenID Connect provider says."""


class SignInStep(Table, tablename="sign_in_steps", db=DB):
    """A sign-in under way. The browser has its token in a cookie; here is a hash of it."""

    token_hash = Varchar(length=64, primary_key=True, default="", help_text="SHA-256, hexadecimal")
    purpose = Varchar(length=20, default="", help_text="One of Purpose")
    user_id = Integer(null=True, default=None, help_text="Of piccolo_user, where it is known yet")
    details = JSONB(default="{}")
    expires_at = Timestamptz(default=TimestamptzNow())
