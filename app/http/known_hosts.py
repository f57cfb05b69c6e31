"""The pages of operators answer under the names of MAILROOM_ALLOWED_HOSTS alone, where it is set.

A page under another name is another site's (DNS rebinding). Webhooks, the API, health and metrics
are asked under addresses, too, and do not trust a browser's session, so they answer everywhere.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import ClientException
from litestar.handlers import BaseRouteHandler

from app.http.host_names import host_name
from app.settings import get_settings


def only_known_hosts(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """A guard of Litestar.

    Raises:
        ClientException: the request came under a name that is not allowed.
    """
    allowed = get_settings().allowed_hosts
    if allowed and host_name(connection.headers.get("host", "")) not in allowed:
        raise ClientException("this host name is not one of MAILROOM_ALLOWED_HOSTS: add it there")
