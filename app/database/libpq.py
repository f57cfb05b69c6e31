"""URLs of PostgreSQL as libpq reads them, for who uses psycopg beside asyncpg."""

import re
from typing import Any
from urllib.parse import unquote_plus

from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from app.database.connections import can_write

# asyncpg's other name of a parameter.
_NAMES = {"database": "dbname"}
# These have a meaning of their own within `options`.
_SPECIAL = re.compile(r"[\\\s]")


def libpq_parameters(url: str) -> dict[str, Any]:
    """The parameters of a connection that asyncpg would open by the same URL.

    What libpq does not know, such as `search_path`, asyncpg takes for settings of the server: they
    are told to it in `options`.

    Raises:
        psycopg.ProgrammingError: the URL cannot be read.
    """
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    base, _, query = can_write(url).partition("?")
    kept, settings = [], []
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        name = _NAMES.get(name, name)
        if name in known:
            # Not decoded: libpq reads a plus sign otherwise than Python, and takes no second `=`.
            kept.append(f"{name}={value.replace('=', '%3D')}")
        else:
            escaped = _SPECIAL.sub(r"\\\g<0>", unquote_plus(value))
            settings.append(f"-c {unquote_plus(name)}={escaped}")
    parameters: dict[str, Any] = conninfo_to_dict(
        "?".join([base, "&".join(kept)]) if kept else base
    )
    if settings:
        options = parameters.get("options")
        parameters["options"] = " ".join([*([options] if options else []), *settings])
    return parameters
