"""The `audit_entries` table: what people and programs did, an entry an act. `app.audit.log` alone
writes it, and only retention deletes; a trigger refuses everything else."""

from enum import StrEnum

from piccolo.columns import JSONB, UUID, BigInt, Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

from app.database.engine import DB

LONGEST_NAME = 255


class ActorKind(StrEnum):
    """Who acted."""

    USER = "user"
    """Who has signed in."""

    TOKEN = "token"  # noqa: S105 - no secret
    """A program with a bearer token."""

    COMMAND = "command"
    """Who typed a command."""

    NOBODY = "nobody"
    """Who was not let in."""


class Door(StrEnum):
    """By what it was done."""

    PAGE = "page"
    ADMIN = "admin"
    API = "api"
    COMMAND = "command"


class Result(StrEnum):
    """What became of it."""

    DONE = "done"
    BEGUN = "begun"
    """It goes on in several steps, of which the end has an entry of its own, or a record."""

    NOTHING = "nothing"
    """What it was about was in no state for it."""

    REFUSED = "refused"
    """Who asked may not."""


class AuditEntry(Table, tablename="audit_entries", db=DB):
    """Something that somebody did, or was refused."""

    id = UUID(primary_key=True, default=UUID4())
    at = Timestamptz(default=TimestamptzNow())
    actor_kind = Varchar(length=20, default="", help_text="One of ActorKind")
    actor = Varchar(
        length=LONGEST_NAME, default="", help_text="The user's or token's name, or user@machine"
    )
    user_id = Integer(null=True, default=None, help_text="Of a user who signed in")
    door = Varchar(length=20, default="", help_text="One of Door")
    address = Varchar(
        length=LONGEST_NAME, null=True, default=None, help_text="From where, as proxies tell it"
    )
    act = Varchar(length=60, default="", help_text="One of app.audit.acts.Act")
    object = Varchar(
        length=LONGEST_NAME, null=True, default=None, help_text="An id or name; never a customer's"
    )
    result = Varchar(length=20, default="", help_text="One of Result")
    changed = BigInt(null=True, default=None, help_text="How many it changed, if it may be many")
    details = JSONB(null=True, default=None, help_text="No addresses, bodies or secrets")
    request_id = UUID(null=True, default=None, help_text="As in the log and the answer")
