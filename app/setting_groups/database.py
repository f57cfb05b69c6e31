"""Where the truth lives, and the job engine."""

import getpass
import os
from typing import Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AliasChoices, Field, model_validator

from app.setting_groups.group import SettingGroup, check_url

EMBEDDED = "embedded"


class DatabaseSettings(SettingGroup):
    """PostgreSQL and the broker."""

    database_url: str = Field(
        default=EMBEDDED, validation_alias=AliasChoices("DATABASE_URL"), repr=False
    )
    """Where the truth lives: `postgresql://user:password@host/database`, or `embedded`. Several
    hosts, as in `host1:5432,host2:5432`: the one that can write."""

    broker_url: str = Field(default="", validation_alias=AliasChoices("BROKER_URL"), repr=False)
    """Job engine: `postgresql://`, `redis://`, `rediss://`, `amqp://` or `amqps://`.
    Empty: the database."""

    database_pool_size: int = Field(default=6, ge=2)
    """PostgreSQL connections that one web or worker process opens for its own work."""

    behind_pgbouncer: bool = False
    """`DATABASE_URL` leads to PgBouncer, or a pooler like it, in transaction mode. `BROKER_URL` is
    needed then, and leads past it."""

    @model_validator(mode="after")
    def _check_database(self) -> Self:
        if self.database_url != EMBEDDED:
            if not self.database_url.startswith(("postgresql://", "postgres://")):
                raise ValueError("DATABASE_URL has to start with postgresql:// or be `embedded`")
            check_url("DATABASE_URL", self.database_url)
        if self.behind_pgbouncer and not self.broker_url:
            raise ValueError(
                "BROKER_URL is missing: with MAILROOM_BEHIND_PGBOUNCER it has to name Redis, "
                "RabbitMQ or PostgreSQL itself, because a job engine on PostgreSQL needs sessions"
            )
        for url in filter(None, self.broker_url.split(";")):
            check_url("BROKER_URL", url)
        for name, url in (("DATABASE_URL", self.database_url), ("BROKER_URL", self.broker_url)):
            if url.startswith(("postgresql://", "postgres://")):
                _check_user(name, url)
        if self.is_production and "database_url" not in self.model_fields_set:
            raise ValueError(
                "DATABASE_URL is missing: production needs a PostgreSQL server "
                "(or DATABASE_URL=embedded, if the embedded one is what you want)"
            )
        return self


def _check_user(name: str, url: str) -> None:
    """Find a URL without a user where the process's own has no name to stand in for it.

    Raises:
        ValueError: names the setting.
    """
    parts = urlsplit(url)
    if parts.username or "user" in parse_qs(parts.query) or os.environ.get("PGUSER"):
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):
        raise ValueError(
            f"{name} names no user, and the user id {os.getuid()} of this process has no name "
            "that could stand for it: write postgresql://user@host/database"
        ) from None
