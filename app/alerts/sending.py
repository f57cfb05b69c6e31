"""How a message gets to one of those who are told."""

from datetime import UTC, datetime
from http import HTTPMethod

import structlog
from standardwebhooks import Webhook

from app.alerts.messages import Message
from app.errors import MailroomError
from app.outbound.client import Limits, OutboundClient
from app.outbound.mail import MailServer, send_mail
from app.outbound.rules import Rules
from app.setting_groups.alerts import AlertTarget, AlertWay
from app.settings import Settings

log = structlog.get_logger(__name__)

LIMITS = Limits(total_seconds=30.0, most_bytes=64 * 1024, silent_seconds=15.0)
# Characters of what a receiver answers.
LONGEST_ANSWER = 200


class NotTakenError(MailroomError):
    """A receiver answers something else than 2xx."""


class NotSentError(MailroomError):
    """A message broke on its way out."""


async def send(settings: Settings, target: AlertTarget, message: Message) -> None:
    """Tell somebody once.

    Raises:
        MailroomError: it did not arrive; the message says why, and holds no secret.
    """
    try:
        await _send(settings, target, message)
    except MailroomError:
        raise
    except Exception as error:
        # Whatever breaks for one of those who are told, the others are told. Its text may hold a
        # secret.
        log.error("alert_broken", way=target.way.value, exc_info=error)
        raise NotSentError(
            f"the message to {target.host} broke with {type(error).__name__}: see the entry of "
            "MAILROOM_ALERT_URL, and the log"
        ) from error


async def _send(settings: Settings, target: AlertTarget, message: Message) -> None:
    now = datetime.now(UTC)
    match target.way:
        case AlertWay.WEBHOOK:
            body = message.as_json(now)
            headers = {
                "webhook-id": str(message.id),
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(settings.alert_secret).sign(
                    str(message.id), now, body
                ),
            }
            await _post(settings, target, body, headers)
        case AlertWay.SLACK:
            await _post(settings, target, message.as_slack(), {})
        case AlertWay.MAIL:
            await send_mail(
                MailServer(
                    host=target.host,
                    port=target.port,
                    user=target.user,
                    password=target.password,
                    is_tls=target.is_tls,
                    is_plain=target.is_plain,
                ),
                message.as_mail(target.sender, target.to, now),
                ca_file=settings.outbound_ca_file,
            )


async def _post(
    settings: Settings, target: AlertTarget, body: str, headers: dict[str, str]
) -> None:
    rules = Rules.from_settings(settings, [target.host])
    client = OutboundClient(rules, LIMITS, ca_file=settings.outbound_ca_file)
    try:
        async with client.ask(
            HTTPMethod.POST,
            target.url,
            headers={"content-type": "application/json; charset=utf-8", **headers},
            content=body.encode(),
        ) as answer:
            said = (await answer.read()).decode("utf-8", "replace")
            if not 200 <= answer.status < 300:
                first = " ".join(said.split())[:LONGEST_ANSWER]
                raise NotTakenError(f"{target.host} answers {answer.status} {first}".strip())
    finally:
        await client.aclose()
