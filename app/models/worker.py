"""The worker processes that were heard of lately. It is there for people to look at: no claim and
no rescue depends on it."""

from piccolo.columns import Integer, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class Worker(Table, tablename="workers", db=DB):
    """One worker process; a process that stopped in order is not listed any longer."""

    name = Varchar(length=255, primary_key=True, help_text="Host and process id, as `claimed_by`")
    threads = Integer(help_text="Emails it handles at once")
    started_at = Timestamptz(default=TimestamptzNow())
    seen_at = Timestamptz(default=TimestamptzNow(), help_text="Its last sign of life")
