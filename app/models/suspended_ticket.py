"""What Zendesk suspended: mail that became no ticket, and that it deletes after 14 days. Only
`app.zendesk.suspended` and erasures write it."""

from piccolo.columns import UUID, BigInt, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class SuspendedTicket(Table, tablename="suspended_tickets", db=DB):
    """One of those that Zendesk lists; it goes when Zendesk lists it no longer."""

    id = BigInt(primary_key=True, default=0, help_text="Zendesk's")
    cause = Varchar(length=60, default="", help_text="Zendesk's name for why, such as `spam`")
    cause_text = Text(default="", help_text="Why, in Zendesk's words")
    sender = Text(default="")
    sender_name = Text(null=True, default=None)
    subject = Text(default="")
    ticket_id = BigInt(null=True, default=None, help_text="The ticket that it answers, if any")
    suspended_at = Timestamptz(default=TimestamptzNow(), help_text="14 days before it is deleted")
    seen_at = Timestamptz(default=TimestamptzNow(), help_text="When Zendesk listed it last")
    first_seen_at = Timestamptz(default=TimestamptzNow(), help_text="When Zendesk listed it first")
    archived_at = Timestamptz(null=True, default=None)
    archived_as = UUID(null=True, default=None, help_text="Its id in the quarantine")
    recover_asked_at = Timestamptz(null=True, default=None)
    recover_tries = Integer(default=0)
    erased_at = Timestamptz(
        null=True, default=None, help_text="When its sender was erased; nothing of it comes back"
    )
