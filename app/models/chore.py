"""The `chores` table: what one process at a time does now and then, who does it now, and how it
went. Only `app.jobs.chore_rows` writes it."""

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class ChoreRecord(Table, tablename="chores", db=DB):
    """One chore of the workers, such as `prune`."""

    name = Varchar(length=100, primary_key=True)
    token = UUID(null=True, default=None, help_text="Of the run that goes on now")
    lease_expires_at = Timestamptz(
        null=True, default=None, help_text="Nobody else begins it before, unless it ends"
    )
    running_by = Varchar(
        length=255, null=True, default=None, help_text="Host and process id of who does it now"
    )
    next_run_at = Timestamptz(default=TimestamptzNow(), help_text="Not to be begun before")
    last_started_at = Timestamptz(null=True, default=None)
    last_ended_at = Timestamptz(null=True, default=None, help_text="Well or not")
    last_ok_at = Timestamptz(null=True, default=None, help_text="When it last ended well")
    failures = Integer(default=0, help_text="Runs since then that did not end well")
    last_error = Text(null=True, default=None, help_text="Why the last run did not end well")
    last_note = Text(null=True, default=None, help_text="What it did, or how far it is")
