"""A scope of tokens for Prometheus, which has no need to read emails.

The column stays as it is: the scopes are checked by Mailroom and not by the database. Before going
back, revoke the tokens with this scope: an older Mailroom does not know it.
"""

from enum import Enum

from piccolo.columns import Varchar

from app.database.online_migration import OnlineMigration

ID = "2026-11-24T09:00:07:000000"
VERSION = "1.38.0"
DESCRIPTION = "the scope metrics of api_tokens"

OldScope = Enum("Scope", {"READ": "read", "OPERATE": "operate"})
Scope = Enum("Scope", {"METRICS": "metrics", "READ": "read", "OPERATE": "operate"})


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.alter_column(
        table_class_name="ApiToken",
        tablename="api_tokens",
        column_name="scope",
        db_column_name="scope",
        params={"choices": Scope},
        old_params={"choices": OldScope},
        column_class=Varchar,
        old_column_class=Varchar,
    )
    return manager
