"""What Mailroom keeps of Zendesk's own records: how far they were looked through, calls of the
webhook that did not reach it, and answers of shapes that nobody has seen.
"""

from enum import StrEnum

from piccolo.columns import UUID, BigInt, BigSerial, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB


class Outcome(StrEnum):
    """What became of an invocation that Zendesk did not record as delivered."""

    WAITING = "waiting"
    """Nobody has looked into it yet."""

    RECOVERED = "recovered"
    """Its request was admitted: the email is here since."""

    HAD = "had"
    """The email was here already."""

    NO_EMAIL = "no_email"
    """Its request is about something else."""

    NO_REQUEST = "no_request"
    """Zendesk sent none: its email is looked for by its ticket."""

    QUARANTINED = "quarantined"
    """Its request was refused, and is in the quarantine."""

    DELIVERED = "delivered"
    """Zendesk tried again, and it was taken."""

    GONE = "gone"
    """Zendesk knows it no longer."""

    ODD = "odd"
    """Its record has a shape that nobody has seen."""


class ZendeskCursor(Table, tablename="zendesk_cursors", db=DB):
    """How far one list of Zendesk's has been looked through."""

    name = Varchar(length=200, primary_key=True, help_text="Such as `tickets`")
    position = Text(null=True, default=None, help_text="Zendesk's cursor, within a round")
    since = Timestamptz(default=TimestamptzNow(), help_text="What is older is not looked at")
    seen_until = Timestamptz(
        default=TimestamptzNow(), help_text="All that happened before was looked at"
    )
    looked_at = BigInt(default=0, help_text="Items so far")
    found = BigInt(default=0, help_text="Emails so far that were not here")
    odd = BigInt(default=0, help_text="Items so far of a shape that nobody has seen")
    trouble = Text(null=True, default=None, help_text="What is wrong, and how to mend it")
    ended_at = Timestamptz(null=True, default=None, help_text="When a round last came to its end")
    updated_at = Timestamptz(default=TimestamptzNow())


class ZendeskInvocation(Table, tablename="zendesk_invocations", db=DB):
    """A call of the webhook that Zendesk did not record as delivered. No content."""

    id = Varchar(length=64, primary_key=True)
    webhook_id = Varchar(length=64)
    status = Varchar(length=40, help_text="Zendesk's word")
    completed_at = Timestamptz(default=TimestamptzNow(), help_text="Its last attempt")
    outcome = Varchar(length=20, default=Outcome.WAITING, help_text="One of Outcome")
    email = UUID(null=True, default=None, help_text="What it became")
    listed_at = Timestamptz(default=TimestamptzNow())
    looked_at = Timestamptz(null=True, default=None)


class ZendeskOddity(Table, tablename="zendesk_oddities", db=DB):
    """An answer's item of a shape that nobody has seen, as it came; some of the newest are kept."""

    id = BigSerial(primary_key=True)
    seen_at = Timestamptz(default=TimestamptzNow())
    kind = Varchar(length=40)
    item = Text(help_text="JSON. It may hold what people wrote")


class ZendeskTicketInQuestion(Table, tablename="zendesk_tickets_in_question", db=DB):
    """A ticket of which emails were made from comments: webhooks of it are compared with them."""

    ticket_id = Varchar(length=64, primary_key=True)
    created_at = Timestamptz(default=TimestamptzNow(), index=True)


class ZendeskUnseenTicket(Table, tablename="zendesk_unseen_tickets", db=DB):
    """A ticket whose comments could not be seen. No content."""

    ticket_id = Varchar(length=64, primary_key=True)
    unseen_since = Timestamptz(
        default=TimestamptzNow(), help_text="What was written since then is missing"
    )
    ask_at = Timestamptz(
        null=True,
        default=None,
        index=True,
        help_text="When Zendesk is asked again; none: when the ticket changes, out of the trash",
    )
    rounds_away = Integer(default=0, help_text="In how many rounds Zendesk failed for it")
    noted_at = Timestamptz(default=TimestamptzNow())
