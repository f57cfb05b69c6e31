"""Who asks: operators sign in to Piccolo Admin, and its session opens the overview as well."""

from litestar.exceptions import ServiceUnavailableException
from litestar.types import Scope
from piccolo_api.session_auth.middleware import SessionsAuthBackend
from starlette.authentication import AuthenticationError
from starlette.requests import HTTPConnection

from app.database.errors import CANNOT_ASK
from app.desk.operators import Operator
from app.settings import get_settings

# A page that updates itself is no sign of a person, so asking does not prolong the session.
SESSIONS = SessionsAuthBackend(auth_table=Operator, admin_only=True, increase_expiry=None)


async def signed_in(scope: Scope) -> Operator | None:
    """The operator of this request's session; None without one that is valid.

    Raises:
        ServiceUnavailableException: the database is away.
    """
    try:
        found = await SESSIONS.authenticate(HTTPConnection(dict(scope)))
    except AuthenticationError:
        return None
    except CANNOT_ASK as error:
        raise database_is_away() from error
    user: Operator | None = found[1].user if found else None
    return user


def database_is_away() -> ServiceUnavailableException:
    """What whoever asks is told then."""
    health = f"{get_settings().root_path}/health/ready"
    return ServiceUnavailableException(f"the database does not answer: {health} says more")
