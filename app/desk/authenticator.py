"""The second step of a sign-in: Piccolo's authenticator provider with its table, where a code
counts once, tries are counted for all web processes, and hashes are computed beside the event loop.
"""

import asyncio
import hmac
import re
import secrets
import time
from datetime import UTC, datetime

import pyotp
from litestar.exceptions import ServiceUnavailableException
from piccolo.apps.user.tables import BaseUser
from piccolo_api.encryption.providers import EncryptionProvider, FernetProvider
from piccolo_api.mfa.authenticator.provider import AuthenticatorProvider
from piccolo_api.mfa.authenticator.tables import AuthenticatorSecret
from piccolo_api.mfa.recovery_codes import generate_recovery_code

from app.audit.log import Database
from app.database.engine import running_pool
from app.desk.login_limit import count_code
from app.desk.operators import hash_aside
from app.i18n.texts import gettext as _
from app.setting_groups.sign_in import MAKE_A_KEY
from app.settings import get_settings

ISSUER = "Mailroom"
RECOVERY_CODES = 8
# A code is good for 30 seconds, and one step of delay is the most that should be let pass:
# https://www.rfc-editor.org/rfc/rfc6238#section-5.2
STEP_SECONDS = 30
WINDOW = 1
CODE = re.compile(r"[0-9]{6}")
RECOVERY_CODE = re.compile(r"[a-z0-9]{6}-[a-z0-9]{6}")

FIND = """
SELECT id, secret, recovery_codes FROM authenticator_secret
WHERE user_id = $1 AND revoked_at IS NULL ORDER BY created_at DESC LIMIT 1
"""
# A code that was used is refused, and with it those of earlier steps: what is kept is the time of
# the code's own step.
USE_CODE = """
UPDATE authenticator_secret SET last_used_at = $2, last_used_code = $3
WHERE id = $1 AND revoked_at IS NULL AND (last_used_at IS NULL OR last_used_at < $2)
RETURNING id
"""
USE_RECOVERY_CODE = """
UPDATE authenticator_secret SET recovery_codes = array_remove(recovery_codes, $2),
    recovery_codes_used_at = array_append(recovery_codes_used_at, now())
WHERE id = $1 AND revoked_at IS NULL AND $2 = ANY (recovery_codes) RETURNING id
"""
INSERT = """
INSERT INTO authenticator_secret (user_id, secret, recovery_codes, recovery_codes_used_at,
    created_at, last_used_at, last_used_code)
VALUES ($1, $2, $3, '{}', now(), $4, $5)
"""
# Who turns it on twice at once has it once.
HOLD_USER = "SELECT FROM piccolo_user WHERE id = $1 FOR UPDATE"
IS_ON = """
SELECT EXISTS (SELECT FROM authenticator_secret WHERE user_id = $1 AND revoked_at IS NULL)
"""
TURN_OFF = """
UPDATE authenticator_secret SET revoked_at = now() WHERE user_id = $1 AND revoked_at IS NULL
RETURNING id
"""
COUNT_RECOVERY_CODES = """
SELECT cardinality(recovery_codes) FROM authenticator_secret
WHERE user_id = $1 AND revoked_at IS NULL ORDER BY created_at DESC LIMIT 1
"""


class SecondStepKeyError(ServiceUnavailableException):
    """Codes cannot be checked: the key is missing, or another one than they were made with."""


class KeyOfSettings(EncryptionProvider):
    """Piccolo's Fernet encryption, by the key of the settings."""

    def __init__(self) -> None:
        super().__init__(prefix="fernet")

    def encrypt(self, value: str, add_prefix: bool = True) -> str:
        """Seal a text.

        Raises:
            SecondStepKeyError: there is no key.
        """
        sealed: str = _fernet().encrypt(value, add_prefix=add_prefix)
        return sealed

    def decrypt(self, encrypted_value: str, has_prefix: bool = True) -> str:
        """Open what was sealed.

        Raises:
            SecondStepKeyError: there is no key, or it is another one.
        """
        # As Piccolo does: where nobody has an app, no process has the library of ciphers.
        from cryptography.fernet import InvalidToken

        try:
            opened: str = _fernet().decrypt(encrypted_value, has_prefix=has_prefix)
        except InvalidToken as error:
            raise SecondStepKeyError(
                _(
                    "codes cannot be checked: MAILROOM_SECOND_STEP_KEY is another one than they "
                    "were set up with: set that one again, or have an administrator reset the "
                    "second step with `mailroom user reset-second-step NAME`"
                )
            ) from error
        return opened


class Secret(AuthenticatorSecret, tablename="authenticator_secret"):
    """Piccolo's table, with codes that count once whoever comes with them at once."""

    @classmethod
    async def authenticate(
        cls, user_id: int, code: str, encryption_provider: EncryptionProvider, valid_window: int = 0
    ) -> bool:
        """Whether a code, or a recovery code, is the user's and was not used yet. It is used then.

        Raises:
            TooManyAttemptsError: too many were tried for this user.
            SecondStepKeyError: codes cannot be checked.
        """
        pool = running_pool()
        await count_code(user_id)
        row = await pool.fetchrow(FIND, user_id)
        if row is None:
            return False
        given = tidy(code)
        if CODE.fullmatch(given):
            step = step_of(encryption_provider.decrypt(row["secret"]), given, valid_window)
            return step is not None and bool(await pool.fetch(USE_CODE, row["id"], step, given))
        if not RECOVERY_CODE.fullmatch(given) or not row["recovery_codes"]:
            return False
        rounds, salt = BaseUser.split_stored_password(row["recovery_codes"][0])[1:3]
        hashed = await hash_aside(given, salt, int(rounds))
        return bool(await pool.fetch(USE_RECOVERY_CODE, row["id"], hashed))


class SecondStep(AuthenticatorProvider):
    """Piccolo's provider, for our pages and for Piccolo Admin's own login."""

    def __init__(self) -> None:
        super().__init__(
            encryption_provider=KeyOfSettings(),
            recovery_code_count=RECOVERY_CODES,
            secret_table=Secret,
            issuer_name=ISSUER,
            valid_window=WINDOW,
        )


SECOND_STEP = SecondStep()


def tidy(code: str) -> str:
    """A code as people type it, as it was meant."""
    return "".join(code.split()).lower()


def is_recovery_code(code: str) -> bool:
    """Whether what was typed looks like one."""
    return RECOVERY_CODE.fullmatch(tidy(code)) is not None


def step_of(secret: str, code: str, window: int = WINDOW) -> datetime | None:
    """When the step began whose code this is; None where it is none of now."""
    totp = pyotp.TOTP(secret, interval=STEP_SECONDS)
    now = int(time.time()) // STEP_SECONDS
    for step in range(now - window, now + window + 1):
        if hmac.compare_digest(totp.generate_otp(step), code):
            return datetime.fromtimestamp(step * STEP_SECONDS, UTC)
    return None


async def make_recovery_codes() -> tuple[list[str], list[str]]:
    """New recovery codes, and what is kept of them."""
    codes = [generate_recovery_code() for _ in range(RECOVERY_CODES)]
    # One salt for all: a code that is typed is hashed once.
    salt = secrets.token_hex(16)
    return codes, [*await asyncio.gather(*(hash_aside(code, salt) for code in codes))]


async def turn_on(
    connection: Database, user_id: int, sealed: str, used: tuple[datetime, str], kept: list[str]
) -> bool:
    """Have a user asked for codes from now on. Returns False where they are already.

    Args:
        sealed: the secret of the app.
        used: the code that showed that it has it, with the time of its step.
        kept: of the recovery codes.
    """
    await connection.execute(HOLD_USER, user_id)
    if await connection.fetchval(IS_ON, user_id):
        return False
    await connection.execute(INSERT, user_id, sealed, kept, *used)
    return True


async def turn_off(database: Database, user_id: int) -> bool:
    """Have a user asked for codes no longer. Returns False where they were not."""
    return bool(await database.fetch(TURN_OFF, user_id))


async def recovery_codes_left(database: Database, user_id: int) -> int | None:
    """How many recovery codes a user has; None where no code is asked for."""
    found: int | None = await database.fetchval(COUNT_RECOVERY_CODES, user_id)
    return found


def _fernet() -> FernetProvider:
    key = get_settings().second_step_key
    if not key:
        raise SecondStepKeyError(
            _(
                "codes cannot be checked: MAILROOM_SECOND_STEP_KEY is missing: set the one that "
                "was there before, or make the first one with `%(command)s`",
                command=MAKE_A_KEY,
            )
        )
    return FernetProvider(key.encode())
