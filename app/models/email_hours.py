"""How many emails came in each hour of the last weeks: what `app.zendesk.silence` knows silence by.
It stays when emails are pruned or erased, and tells nothing of any of them."""

from piccolo.columns import Integer, Timestamptz
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class EmailHour(Table, tablename="email_hours", db=DB):
    """An hour in which emails came. One without any may be missing."""

    hour = Timestamptz(primary_key=True, default=TimestamptzNow(), help_text="When it began (UTC)")
    emails = Integer(default=0)
