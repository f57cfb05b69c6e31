"""Users with their roles and sessions, for the page and the command."""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta

import asyncpg
import attrs

from app.audit.log import Database
from app.database.session_guard import LAST_ADMIN
from app.desk.operators import Operator
from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.models.operator_account import Role

# As Piccolo makes sessions.
SESSION_SPAN = timedelta(hours=1)
LONGEST_SESSION = timedelta(days=7)
MOST_LISTED = 500

LIST = """
SELECT piccolo_user.id, username, active AND admin AS active, last_login,
    CASE WHEN superuser THEN 'admin' ELSE COALESCE(role, 'operator') END AS role,
    EXISTS (SELECT FROM authenticator_secret AS secret
        WHERE secret.user_id = piccolo_user.id AND revoked_at IS NULL) AS second_step,
    (SELECT count(*) FROM sessions
        WHERE sessions.user_id = piccolo_user.id
            AND LEAST(expiry_date, max_expiry_date) > $1) AS sessions
FROM piccolo_user LEFT JOIN operator_accounts ON operator_accounts.user_id = piccolo_user.id
ORDER BY username LIMIT $2
"""
CREATE = """
INSERT INTO piccolo_user (username, password, email, active, admin, superuser)
VALUES ($1, $2, $3, true, true, $4) ON CONFLICT DO NOTHING RETURNING id
"""
# The superuser's flag and the role, in one statement: they never contradict each other.
SET_ROLE = """
WITH flagged AS (
    UPDATE piccolo_user SET superuser = ($2 = 'admin')
    WHERE id = $1 AND superuser IS DISTINCT FROM ($2 = 'admin')
)
INSERT INTO operator_accounts (user_id, role)
VALUES ($1, CASE WHEN $2 = 'viewer' THEN 'viewer' ELSE 'operator' END)
ON CONFLICT (user_id) DO UPDATE SET role = excluded.role
"""
LIST_SESSIONS = """
SELECT id, expiry_date, max_expiry_date, token = $2 AS is_this FROM sessions
WHERE user_id = $1 AND LEAST(expiry_date, max_expiry_date) > $3 ORDER BY max_expiry_date DESC
LIMIT 200
"""
END_ONE = "DELETE FROM sessions WHERE user_id = $1 AND id = $2"
END_ALL = "DELETE FROM sessions WHERE user_id = $1"
END_OTHERS = "DELETE FROM sessions WHERE user_id = $1 AND token <> $2"


class LastAdminError(MailroomError):
    """Nobody would be left who can look after users."""


@contextlib.contextmanager
def keeping_an_admin() -> Iterator[None]:
    """Tell what the database's guard says, which refuses it by whatever door.

    Raises:
        LastAdminError: this block would leave nobody who can look after users.
    """
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != LAST_ADMIN:
            raise
        raise LastAdminError(
            _("nobody else is an administrator who may sign in: make somebody one first")
        ) from error


@attrs.frozen(kw_only=True)
class Person:
    """A user, for a list."""

    id: int
    username: str
    role: Role
    active: bool
    """May sign in."""
    last_login: datetime | None
    """Local time, as Piccolo keeps it."""
    second_step: bool
    """A code of an authenticator app is asked for."""
    sessions: int


@attrs.frozen(kw_only=True)
class Session:
    """One sign-in that still counts. Times are local, as Piccolo keeps them."""

    id: int
    began_at: datetime
    ends_at: datetime
    """If it is not used until then."""
    is_this: bool
    """It is the one that asks."""


def local_now() -> datetime:
    """Piccolo's tables hold local times without a zone."""
    return datetime.now()  # noqa: DTZ005


async def list_people(database: Database) -> list[Person]:
    """The users, by name."""
    rows = await database.fetch(LIST, local_now(), MOST_LISTED)
    return [Person(**{**row, "role": Role(row["role"])}) for row in rows]


async def list_sessions(database: Database, user: Operator, token: str) -> list[Session]:
    """The sessions of a user, the newest first.

    Args:
        token: of the session that asks.
    """
    return [
        Session(
            id=row["id"],
            began_at=row["max_expiry_date"] - LONGEST_SESSION,
            ends_at=min(row["expiry_date"], row["max_expiry_date"]),
            is_this=row["is_this"],
        )
        for row in await database.fetch(LIST_SESSIONS, user.id, token, local_now())
    ]


async def end_sessions(
    database: Database, user_id: int, *, session_id: int | None = None, keep: str | None = None
) -> int:
    """Sign a user out. Returns of how many sessions.

    Args:
        session_id: of this one alone.
        keep: the token of the session that stays.
    """
    if session_id is not None:
        tag = await database.execute(END_ONE, user_id, session_id)
    elif keep is not None:
        tag = await database.execute(END_OTHERS, user_id, keep)
    else:
        tag = await database.execute(END_ALL, user_id)
    return int(str(tag).removeprefix("DELETE "))
