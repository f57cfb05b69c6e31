"""The `retention_marks` table: from where the next look begins for what is old enough. Only
`app.retention.marks` writes it."""

from piccolo.columns import Timestamptz, Varchar
from piccolo.table import Table

from app.database.engine import DB


class RetentionMark(Table, tablename="retention_marks", db=DB):
    """How far one kind of removal came."""

    name = Varchar(length=50, primary_key=True)
    done_until = Timestamptz(
        null=True, default=None, help_text="Of what ended before, nothing is left to be removed"
    )
    looked_at_all_at = Timestamptz(
        null=True, default=None, help_text="When it last began at the oldest of all"
    )
