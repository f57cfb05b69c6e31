"""The alarms: what is wrong with Mailroom or around it, since when, and whom it was told. Only
`app.alerts` writes them."""

from enum import StrEnum

from piccolo.columns import UUID, Integer, Text, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.constraints import Unique
from piccolo.table import Table

from app.database.engine import DB


class AlarmKind(StrEnum):
    """What an alarm is about."""

    SILENCE = "silence"
    """No email comes, though it is the time for it."""

    SUSPENDED = "suspended"
    """Zendesk is about to delete emails that it suspended."""

    ZENDESK = "zendesk"
    """Zendesk cannot be asked, so what it never delivers is not seen."""

    CANARY = "canary"
    """A synthetic email did not go the whole way, so real ones may not either."""


class AlarmMoment(StrEnum):
    """What is told of an alarm."""

    BEGAN = "began"
    ENDED = "ended"


class NoticeState(StrEnum):
    """How far a notice is."""

    PENDING = "pending"
    TOLD = "told"
    DROPPED = "dropped"
    """The alarm was over before it could be told; its end tells both."""


class Alarm(Table, tablename="alarms", db=DB):
    """One alarm. Of a kind and key one is open at most."""

    id = UUID(primary_key=True, default=UUID4())
    kind = Varchar(length=40, default="", choices=AlarmKind)
    key = Varchar(length=200, default="", help_text="Which of its kind; of some there is just one")
    text = Text(default="", help_text="What is wrong, in words without personal data")
    mend = Text(default="", help_text="What to do about it")
    since = Timestamptz(default=TimestamptzNow())
    last_seen_at = Timestamptz(default=TimestamptzNow(), help_text="When it was found last")
    ended_at = Timestamptz(
        null=True, default=None, help_text="When it was found to be over; it may begin again"
    )
    closed_at = Timestamptz(
        null=True, default=None, help_text="When it had been over for long enough to be told so"
    )


class AlarmNotice(Table, tablename="alarm_notices", db=DB):
    """One message about an alarm to one of those who are told."""

    id = UUID(primary_key=True, default=UUID4())
    alarm = UUID(default=None)
    moment = Varchar(length=10, default="", choices=AlarmMoment)
    target = Varchar(length=64, default="", help_text="Hash of the address, without its password")
    state = Varchar(length=10, default=NoticeState.PENDING, choices=NoticeState)
    token = UUID(null=True, default=None, help_text="Of the try that goes on now")
    tries = Integer(default=0)
    next_attempt_at = Timestamptz(default=TimestamptzNow())
    error = Text(null=True, default=None, help_text="Why the last try did not succeed")
    told_at = Timestamptz(null=True, default=None)

    unique_notice = Unique(["alarm", "moment", "target"])
