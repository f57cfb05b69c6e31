"""Who asks: operators sign in to Piccolo Admin, and its session opens the overview as well."""

from datetime import timedelta

from litestar.exceptions import ServiceUnavailableException
from litestar.types import Scope
from piccolo_api.session_auth.middleware import SessionsAuthBackend
from starlette.authentication import AuthenticationError
from starlette.requests import HTTPConnection

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.operators import Operator
from app.i18n.texts import gettext as _
from app.models.operator_account import Role
from app.settings import get_settings

# A page that updates itself is no sign of a person, so its asking does not prolong the session.
SESSIONS = SessionsAuthBackend(auth_table=Operator, admin_only=True, increase_expiry=None)
# As Piccolo Admin does where less is left.
PROLONGING = SessionsAuthBackend(
    auth_table=Operator, admin_only=True, increase_expiry=timedelta(minutes=20)
)

FIND_ROLE = "SELECT role FROM operator_accounts WHERE user_id = $1"


async def signed_in(scope: Scope) -> Operator | None:
    """The operator of this request's session; None without one that is valid.

    Raises:
        ServiceUnavailableException: the database is away.
    """
    try:
        asking = HTTPConnection(dict(scope))
        # Browsers say by it that somebody opens a page or sends a form; no script can.
        # https://www.w3.org/TR/fetch-metadata/#sec-fetch-mode-header
        is_opened = asking.headers.get("sec-fetch-mode") == "navigate"
        found = await (PROLONGING if is_opened else SESSIONS).authenticate(asking)
        user: Operator | None = found[1].user if found else None
        if user is not None:
            user.role = await role_of(user)
    except AuthenticationError:
        return None
    except CANNOT_ASK as error:
        raise database_is_away() from error
    return user


async def role_of(user: Operator) -> Role:
    """What a user may do now."""
    if user.superuser:
        return Role.ADMIN
    found = await running_pool().fetchval(FIND_ROLE, user.id)
    return Role.OPERATOR if found is None else Role(found)


def database_is_away() -> ServiceUnavailableException:
    """What whoever asks is told then."""
    health = f"{get_settings().root_path}/health/ready"
    return ServiceUnavailableException(
        _("the database does not answer: %(address)s says more", address=health)
    )
