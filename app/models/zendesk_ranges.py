"""From which addresses Zendesk calls webhooks, as it publishes them."""

from piccolo.columns import JSONB, BigInt, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class ZendeskRanges(Table, tablename="zendesk_ranges", db=DB):
    """The last good list of an account, and how many signed webhooks came from elsewhere."""

    account = Varchar(length=255, primary_key=True, default="", help_text="Its API's address")
    ranges = JSONB(default="[]", help_text="As 216.198.0.0/18")
    fetched_at = Timestamptz(default=TimestamptzNow())
    outside = BigInt(default=0, help_text="Signed webhooks from other addresses")
    outside_at = Timestamptz(null=True, default=None, help_text="When the last of them came")
    hidden = BigInt(default=0, help_text="Signed webhooks whose sender a proxy hides")
