"""The `email_events` table: what happened to emails besides their jobs, an entry a row.

Whoever changes an email's delivery writes the entry by `events_of`, within the statement or the
transaction of the change. The attempts of the job, what people did with it and what was erased of
it stand in `attempt_errors`; `app.jobs.story` tells one story of both.
"""

from enum import StrEnum

from piccolo.columns import UUID, BigSerial, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.table import Table

from app.database.engine import DB

# Texts come from elsewhere: what a receiver answered, what an operator typed.
MOST_CHARACTERS = 2_000


class EmailEventKind(StrEnum):
    """What an entry is about."""

    DELIVERY = "delivery"
    """One try to deliver, and how it ended; or that it was taken over, or is asked for again."""

    RECONCILIATION = "reconciliation"
    """A difference between the job's end and the delivery was found and mended."""


class EmailEvent(Table, tablename="email_events", db=DB):
    """Something that happened to an email."""

    id = BigSerial(primary_key=True)
    email = UUID(default=None, help_text="No foreign key: each would lock the email's row")
    at = Timestamptz(default=TimestamptzNow())
    kind = Varchar(length=20, help_text="One of EmailEventKind")
    who = Varchar(length=255, null=True, default=None, help_text="The person or token, if any")
    worker = Varchar(length=255, null=True, default=None, help_text="The worker, if any")
    attempt = Integer(null=True, default=None, help_text="Which try it was, from 1, if any")
    text = Text(help_text="What happened, in words. No addresses, bodies or secrets")


def events_of(
    source: str,
    kind: EmailEventKind,
    text: str,
    *,
    email: str = "id",
    at: str = "now()",
    who: str = "NULL",
    worker: str = "NULL",
    attempt: str = "NULL",
) -> str:
    """The INSERT, in SQL, of one entry for each row of a source: a table, or what a `WITH` of the
    same statement RETURNING gives. All but the kind is SQL too, over the source's columns.

    As a part of a `WITH` it is run to its end even if nothing reads it:
    https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING
    """
    return f"""INSERT INTO email_events (email, at, kind, who, worker, attempt, text)
    SELECT {email}, {at}, '{kind}', {who}, {worker}, {attempt}, left({text}, {MOST_CHARACTERS})
    FROM {source}"""  # noqa: S608 - of constants
