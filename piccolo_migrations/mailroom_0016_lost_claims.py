"""How many workers of an email vanished, and the token by which a worker knows its claim again."""

from piccolo.columns import UUID, Integer

from app.database.online_migration import OnlineMigration

ID = "2026-11-25T00:16:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "lost_claims, claim_token"


async def forwards() -> OnlineMigration:
    manager = OnlineMigration(ID, DESCRIPTION)

    def add(name: str, column_class: type, **params: object) -> None:
        manager.add_column(
            table_class_name="IncomingEmail",
            tablename="incoming_emails",
            column_name=name,
            column_class=column_class,
            params=dict(params),
        )

    add("lost_claims", Integer, default=0)
    add("claim_token", UUID, null=True, default=None)
    return manager
