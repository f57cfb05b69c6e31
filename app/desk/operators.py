"""Operators and their passwords: few are tried, few are hashed at once, none in the event loop.

A hash is 600,000 rounds of PBKDF2, a quarter of a second. Piccolo computes it in the event loop,
where every webhook waits for it.
"""

import asyncio
import hmac
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from litestar.exceptions import PermissionDeniedException, ServiceUnavailableException
from piccolo.apps.user.tables import BaseUser

from app.api.search import Search
from app.api.search_text import HANDLER_RESULT, SearchTextError
from app.desk.login_limit import count_attempt
from app.http.bodies import RETRY_AFTER_SECONDS
from app.i18n.texts import gettext as _
from app.models.operator_account import Role
from app.settings import get_settings

HASHES_AT_ONCE = 2
"""In this process. Strangers may make it compute as many as they like."""

MOST_WAITING = 32
"""Hashes that are computed or wait for it; whoever comes then is told to come again."""

# Of the kernel's scheduler: email comes first.
NICENESS = 10

LONGEST_NAME = BaseUser.username.length or 100

# What a password is compared with where there is no such user: it takes as long.
NOBODY = f"pbkdf2_sha256${BaseUser._pbkdf2_iteration_count}${'0' * 32}$none"


class Hashed(str):
    """A new password that was checked and hashed. Piccolo would do both in the event loop."""


class PasswordsOffError(PermissionDeniedException):
    """Nobody signs in with a password."""


class Operator(BaseUser, tablename="piccolo_user"):
    """Piccolo's user; whatever hashes a password here leaves the event loop free."""

    role = Role.OPERATOR
    """What it may do, where `signed_in` has read it."""

    def may(self, role: Role) -> bool:
        """Whether it may do what this role may."""
        return self.role.includes(role)

    @property
    def sees_bodies(self) -> bool:
        """Whether it sees what emails say."""
        return self.may(Role.OPERATOR) or get_settings().viewers_see_bodies

    def see_that_it_may_search(self, search: Search) -> None:
        """See that what a search finds tells no more than this user sees.

        Raises:
            SearchTextError: it looks into what the handler returned, which is what emails say.
        """
        if search.handler_results and not self.sees_bodies:
            raise SearchTextError(
                _(
                    "viewers do not see what emails say: leave out %(qualifier)s",
                    qualifier=HANDLER_RESULT,
                )
            )

    @classmethod
    async def login(cls, username: str, password: str) -> int | None:
        """The id of the user with this name and password.

        Raises:
            PasswordsOffError: nobody signs in with one.
            TooManyAttemptsError: from where it comes too many were tried.
            ServiceUnavailableException: too many are tried at the moment.
        """
        if not get_settings().passwords:
            raise PasswordsOffError(
                _(
                    "passwords are switched off (MAILROOM_PASSWORDS): sign in at /sign-in by "
                    "%(provider)s",
                    provider=get_settings().oidc_name,
                )
            )
        _see_that_there_is_room()
        # Whatever is tried counts: each leaves an entry in the audit log.
        await count_attempt()
        if len(username) > LONGEST_NAME or len(password) > cls._max_password_length:
            return None
        row = await cls.select(cls.id, cls.password).where(cls.username == username).first().run()
        stored: str = row["password"] if row else NOBODY
        rounds, salt = cls.split_stored_password(stored)[1:3]
        hashed = await hash_aside(password, salt, int(rounds))
        if row is None or not hmac.compare_digest(hashed, stored):
            return None
        # Piccolo's columns hold the local time. Who has a new password meanwhile is not let in.
        seen = (
            await cls.update({cls.last_login: datetime.now()})  # noqa: DTZ005
            .where(cls.id == row["id"], cls.password == stored)
            .returning(cls.id)
        )
        if not seen:
            return None
        if int(rounds) != cls._pbkdf2_iteration_count:
            await cls.update_password(username, password)
        user_id: int = row["id"]
        return user_id

    @classmethod
    async def update_password(cls, user: str | int, password: str) -> None:
        """Give a user, by name or id, another password. The database ends their sessions then.

        Raises:
            ValueError: the password is too short or too long.
        """
        await super().update_password(user, await cls.prepare(password))

    @classmethod
    async def create_user(cls, username: str, password: str, **others: Any) -> "BaseUser":
        """Make a user.

        Raises:
            ValueError: there is no name, or the password is too short or too long.
        """
        return await super().create_user(username, await cls.prepare(password), **others)

    @classmethod
    async def prepare(cls, password: str) -> "Hashed":
        """Check and hash a new password beside the event loop.

        Raises:
            ValueError: it is too short or too long.
        """
        cls._validate_password(password)
        return Hashed(await hash_aside(password))

    @classmethod
    def _validate_password(cls, password: str) -> None:
        if not isinstance(password, Hashed):
            super()._validate_password(password)

    @classmethod
    def hash_password(cls, password: str, salt: str = "", iterations: int | None = None) -> str:
        if isinstance(password, Hashed):
            return password
        return super().hash_password(password, salt, iterations)


async def hash_aside(password: str, salt: str = "", rounds: int | None = None) -> str:
    """Piccolo's hash of a password, computed beside the event loop.

    Raises:
        ServiceUnavailableException: too many are computed at the moment.
    """
    global _waiting
    _see_that_there_is_room()
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(
            _threads, BaseUser.hash_password, password, salt, rounds
        )
    finally:
        _waiting -= 1


def _see_that_there_is_room() -> None:
    if _waiting >= MOST_WAITING:
        raise ServiceUnavailableException(
            _("too many people sign in at the moment: try again"),
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        )


def _step_back() -> None:
    # On Linux this is the niceness of the thread alone. To be less nice than it is, it may not.
    thread = threading.get_native_id()
    niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
    os.setpriority(os.PRIO_PROCESS, thread, niceness)


_waiting = 0
_threads = ThreadPoolExecutor(HASHES_AT_ONCE, "password", initializer=_step_back)
