"""Lists of Piccolo Admin, bounded: they share an event loop with the webhooks, and its memory.

Piccolo's page asks for rows without saying which columns, and its API reads all then: a thousand
emails with their bodies. So a list is asked for what its page shows, whoever asks.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from litestar.exceptions import ClientException
from litestar.types import Scope
from piccolo.columns import JSON, Array, Bytea, Text
from piccolo.columns.base import Column
from piccolo_admin.endpoints import TableConfig

TABLES_PATH = "/api/tables/"

# As many as one page of a list has at most.
MOST_IDS = 1_000

WITHOUT_BOUND = (Text, JSON, Bytea, Array)

VISIBLE_FIELDS = "__visible_fields"


def bound_list(scope: Scope, tables: Mapping[str, TableConfig]) -> None:
    """Let a request for a list read the columns that its page shows, or light ones that it names.

    Raises:
        ClientException: it names columns of any length, such as the body of an email.
    """
    if not scope["path"].startswith(TABLES_PATH):
        return
    name, _, rest = scope["path"].removeprefix(TABLES_PATH).partition("/")
    config = tables.get(name)
    if config is None or rest not in ("", "ids/"):
        return
    parameters = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    parameters = _ids(parameters) if rest else _columns(parameters, config)
    scope["query_string"] = urlencode(parameters).encode()


def _columns(parameters: list[tuple[str, str]], config: TableConfig) -> list[tuple[str, str]]:
    # Piccolo takes `name[]` for `name`.
    asked = {
        column
        for name, value in parameters
        if name.rstrip("[]") == VISIBLE_FIELDS
        for column in value.split(",")
    }
    visible = config.get_visible_column_names()
    heavy = [
        column._meta.name
        for column in config.table_class._meta.columns
        if is_heavy(column) and column._meta.name not in visible
    ]
    if wrong := sorted(asked.intersection(heavy)):
        raise ClientException(
            f"{', '.join(wrong)}: of any length, so no list has it: open the single email, or ask "
            "the jobs API"
        )
    return parameters if asked else [*parameters, (VISIBLE_FIELDS, ",".join(visible))]


def _ids(parameters: list[tuple[str, str]]) -> list[tuple[str, str]]:
    limits = [value for name, value in parameters if name == "limit"]
    limit = limits[-1] if limits else str(MOST_IDS)
    if limit.isdecimal():
        limit = str(min(int(limit[:9]), MOST_IDS))
    return [pair for pair in parameters if pair[0] != "limit"] + [("limit", limit)]


def is_heavy(column: Column) -> bool:
    """Whether its values may be of any length."""
    return isinstance(column, WITHOUT_BOUND)
