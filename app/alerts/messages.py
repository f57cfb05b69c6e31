"""What is told of an alarm, in each of the formats."""

import json
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from uuid import UUID

import attrs

from app.models.alarm import AlarmMoment

TEST = "test"
# Characters of a mail's subject.
LONGEST_SUBJECT = 150
_DOMAIN = "mailroom.invalid"


@attrs.frozen
class Message:
    """One message to one of those who are told."""

    id: UUID
    """The same each time that it is tried, so that who gets it twice can tell."""
    moment: str
    """An `AlarmMoment`, or `test`."""
    alarm_id: UUID
    kind: str
    key: str
    text: str
    mend: str
    since: datetime
    ended_at: datetime | None

    @classmethod
    def test(cls, message_id: UUID, now: datetime) -> "Message":
        """A message that says nothing but that it arrived."""
        return cls(
            message_id,
            TEST,
            message_id,
            TEST,
            "",
            "this is a test: alarms of Mailroom arrive here",
            "nothing is wrong",
            now,
            None,
        )

    @property
    def title(self) -> str:
        """The first line."""
        match self.moment:
            case AlarmMoment.BEGAN:
                return f"ALARM {self.kind}: {self.text}"
            case AlarmMoment.ENDED:
                return f"over: {self.kind}: {self.text}"
            case _:
                return self.text

    @property
    def details(self) -> str:
        """The lines below it."""
        since = _minute(self.since)
        if self.ended_at is None:
            return f"Since {since}.\nWhat to do: {self.mend}."
        lasted = timedelta(seconds=round((self.ended_at - self.since).total_seconds()))
        return f"From {since} to {_minute(self.ended_at)} ({lasted})."

    def as_json(self, now: datetime) -> str:
        """The body of a signed POST.

        https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
        """
        return json.dumps(
            {
                "type": f"alarm.{self.moment}",
                "timestamp": now.isoformat(),
                "data": {
                    "id": str(self.alarm_id),
                    "kind": self.kind,
                    "key": self.key,
                    "text": self.text,
                    "mend": self.mend,
                    "since": self.since.isoformat(),
                    "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
                },
            },
            ensure_ascii=False,
        )

    def as_slack(self) -> str:
        """The body of a POST to Slack.

        https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
        """
        text = f"Mailroom: {self.title}\n{self.details}"
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, entity)
        return json.dumps({"text": text}, ensure_ascii=False)

    def as_mail(self, sender: str, to: tuple[str, ...], now: datetime) -> EmailMessage:
        """A plain mail. The end of an alarm answers its beginning."""
        mail = EmailMessage()
        title = " ".join(f"[Mailroom] {self.title}".split())
        mail["Subject"] = title[:LONGEST_SUBJECT]
        mail["From"] = sender
        mail["To"] = ", ".join(to)
        mail["Date"] = format_datetime(now.astimezone(UTC))
        mail["Message-ID"] = f"<{self.id}@{_DOMAIN}>"
        mail["References"] = f"<{self.alarm_id}@{_DOMAIN}>"
        # Nobody's out-of-office reply is wanted, and a desk that gets it must not answer either.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(f"{self.title}\n\n{self.details}\n")
        return mail


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
