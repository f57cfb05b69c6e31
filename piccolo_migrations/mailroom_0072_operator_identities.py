"""Who is who at an OpenID Connect provider. A new table: no email waits for it."""

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Unique

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:12:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "operator_identities"

TABLE = {"table_class_name": "OperatorIdentity", "tablename": "operator_identities"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="OperatorIdentity", tablename="operator_identities")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("id", UUID, primary_key=True, default=UUID4())
    add("issuer", Text, default="")
    add("subject", Varchar, length=255, default="")
    add("user_id", Integer, default=0)
    add("created_at", Timestamptz, default=TimestamptzNow())
    manager.add_constraint(
        **TABLE,
        constraint_name="unique_subject",
        constraint_class=Unique,
        params={"columns": ["issuer", "subject"], "nulls_distinct": True},
    )
    return manager
