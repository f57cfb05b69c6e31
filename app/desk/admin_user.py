"""The administrator's login of development. Production has `mailroom user create`."""

import hmac

from piccolo.apps.user.tables import BaseUser

ADMIN_NAME = "admin"


async def ensure_admin_user(password: str, *, may_reset: bool) -> bool:
    """Make the administrator of development.

    Args:
        may_reset: give one that is there this password. Only where the database is ours alone.

    Returns:
        Whether the administrator's password is this one.
    """
    user = await BaseUser.objects().where(BaseUser.username == ADMIN_NAME).first()
    if user is not None:
        if may_reset and not _has(user, password):
            # It ends the sessions, so not at each start.
            await BaseUser.update_password(user.id, password)
        return may_reset
    if not may_reset and await BaseUser.exists():
        return False
    await BaseUser.create_user(
        username=ADMIN_NAME,
        password=password,
        email="admin@localhost",
        admin=True,
        superuser=True,
        active=True,
    )
    return True


def _has(user: BaseUser, password: str) -> bool:
    _, rounds, salt, _ = BaseUser.split_stored_password(user.password)
    hashed: str = BaseUser.hash_password(password, salt, int(rounds))
    return hmac.compare_digest(hashed, user.password)
