"""Sign-ins that wait for their next step. A new table: no email waits for it."""

from piccolo.columns import JSONB, Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T11:11:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "sign_in_steps"

TABLE = {"table_class_name": "SignInStep", "tablename": "sign_in_steps"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="SignInStep", tablename="sign_in_steps")

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            **TABLE, column_name=name, column_class=column_class, params=dict(params)
        )

    add("token_hash", Varchar, length=64, primary_key=True, default="")
    add("purpose", Varchar, length=20, default="")
    add("user_id", Integer, null=True, default=None)
    add("details", JSONB, default="{}")
    add("expires_at", Timestamptz, default=TimestamptzNow())
    return manager
