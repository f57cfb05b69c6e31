"""The administrator's login of development. Production has `piccolo user create`."""

from piccolo.apps.user.tables import BaseUser

ADMIN_NAME = "admin"


async def ensure_admin_user(username: str, password: str) -> None:
    """Make an administrator for development, or give the one that is there this password."""
    user = await BaseUser.objects().where(BaseUser.username == username).first()
    if user is not None:
        await BaseUser.update_password(user.id, password)
        return
    await BaseUser.create_user(
        username=username,
        password=password,
        email="admin@localhost",
        admin=True,
        superuser=True,
        active=True,
    )
