"""Bearer tokens of the HTTP API."""

from enum import StrEnum

from piccolo.columns import UUID, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

from app.database.engine import DB


class Scope(StrEnum):
    """What a token is good for. Each is also good for what those before it are."""

    METRICS = "metrics"
    """Scrape `/metrics`, which holds nothing of an email."""

    READ = "read"
    """Look at emails and counts."""

    OPERATE = "operate"
    """Retry and erase emails."""

    def is_included_in(self, granted: str) -> bool:
        """Whether a token with the granted scope may do what this one allows. Nothing, where a
        newer version of Mailroom made it with a scope that this one does not know."""
        ordered = [scope.value for scope in Scope]
        return granted in ordered[ordered.index(self) :]


class ApiToken(Table, tablename="api_tokens", db=DB):
    """A token of a program, or of a person who works with `curl`."""

    id = UUID(primary_key=True, default=UUID4())
    name = Varchar(length=100, unique=True, help_text="Who uses it; stands in an email's story")
    token_hash = Varchar(
        length=64, unique=True, help_text="SHA-256; a token is too random to be guessed from it"
    )
    scope = Varchar(length=20, choices=Scope, default=Scope.READ)
    created_at = Timestamptz(default=TimestamptzNow())
    last_used_at = Timestamptz(null=True, default=None, help_text="To the minute")
    revoked_at = Timestamptz(null=True, default=None)
