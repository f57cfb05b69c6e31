"""What an operator does about an email, and the tables of doing it to many: who asked for what, to
which emails, and how far it is. Only `app.bulk` writes them."""

from enum import StrEnum

from piccolo.columns import JSONB, UUID, BigInt, BigSerial, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

from app.database.engine import DB

ERASED_FILTER = "(erased)"
"""Stands for a search or a reason that named somebody whose emails were erased."""


class Action(StrEnum):
    """What an operator can do about an email, and about many."""

    RETRY = "retry"
    """Process it again."""

    SETTLE = "settle"
    """Complete it by hand: it was dealt with elsewhere."""

    DISCARD = "discard"
    """Complete it by hand, and nothing came of it."""

    FETCH = "fetch"
    """Fetch its files again that are not kept."""

    DELIVER = "deliver"
    """Deliver its result again."""

    ERASE = "erase"

    @property
    def removes(self) -> bool:
        """Whether there is no email any more."""
        return self is Action.ERASE

    @property
    def needs_reason(self) -> bool:
        """Whether whoever asks for it has to say why."""
        return self in (Action.SETTLE, Action.DISCARD)


class BulkState(StrEnum):
    """Where a bulk action stands: `running <-> stopped`, `running -> ended`."""

    RUNNING = "running"
    """A worker carries it out, or will as soon as one is there."""

    STOPPED = "stopped"
    """By an operator, who may have it go on."""

    ENDED = "ended"
    """Each of its emails was looked at."""


class BulkAction(Table, tablename="bulk_actions", db=DB):
    """One action on many emails. `done + skipped + failed` is how many were looked at."""

    id = UUID(primary_key=True, default=UUID4())
    action = Varchar(length=20, help_text="One of Action")
    filter = Text(
        null=True, default=None, help_text="The search that found the emails; null: they were named"
    )
    reason = Text(null=True, default=None, help_text="Why, where the action needs that")
    asked_by = Varchar(length=255, help_text="An operator, or a token")
    asked_at = Timestamptz(default=TimestamptzNow())
    state = Varchar(length=20, default=BulkState.RUNNING, choices=BulkState)
    total = Integer(default=0, help_text="Emails that are meant; fixed when it was asked for")
    done = Integer(default=0)
    skipped = Integer(default=0, help_text="They were in no state for it by then")
    failed = Integer(default=0, help_text="The database refused it")
    reasons = JSONB(default="{}", help_text="How many were skipped or failed, by why")
    position = BigInt(default=0, help_text="The last of its `bulk_action_emails` that is through")
    worked_at = Timestamptz(default=TimestamptzNow(), help_text="Its last step")
    ended_at = Timestamptz(null=True, default=None)
    stopped_by = Varchar(length=255, null=True, default=None)


class BulkActionEmail(Table, tablename="bulk_action_emails", db=DB):
    """One email that a bulk action means, in the order in which it goes through them."""

    id = BigSerial(primary_key=True)
    action = UUID(default=None)
    email = UUID(default=None, help_text="Its row may be gone")
    why = Varchar(
        length=40, null=True, default=None, help_text="Why it was skipped, or how it failed"
    )
