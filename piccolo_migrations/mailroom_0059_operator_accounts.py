"""Roles of users. A new table: no email waits for it. Users who are there stay what they are."""

from piccolo.columns import Integer, Varchar
from piccolo.constraints import Check

from app.database.online_migration import OnlineMigration

ID = "2026-11-26T10:59:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "operator_accounts"

TABLE = {"table_class_name": "OperatorAccount", "tablename": "operator_accounts"}


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)
    manager.add_table(class_name="OperatorAccount", tablename="operator_accounts")
    manager.add_column(
        **TABLE,
        column_name="user_id",
        column_class=Integer,
        params={"primary_key": True, "default": 0},
    )
    manager.add_column(
        **TABLE,
        column_name="role",
        column_class=Varchar,
        params={"length": 20, "default": "operator"},
    )
    manager.add_constraint(
        **TABLE,
        constraint_name="check_role",
        constraint_class=Check,
        params={"condition": "role IN ('viewer', 'operator')"},
    )
    return manager
