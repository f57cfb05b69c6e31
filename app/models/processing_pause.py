"""The `processing_pauses` table: a row while processing is paused. Every claim and every look of a
Dispatcher asks for it, so there is one row at most. Only `app.jobs.pausing` writes it."""

from piccolo.columns import Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB

LONGEST_REASON = 500


class ProcessingPause(Table, tablename="processing_pauses", db=DB):
    """Processing is paused as long as the row is there."""

    name = Varchar(length=100, primary_key=True, help_text="What is paused: all")
    since = Timestamptz(default=TimestamptzNow())
    who = Varchar(length=255, help_text="The person or token")
    reason = Varchar(length=LONGEST_REASON, help_text="Why, for those who see it")
