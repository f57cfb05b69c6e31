"""The canary: a signed webhook without an email that Mailroom sends itself now and then, to see
that emails can be accepted, queued and completed.

It takes the whole way, through the web process, its Intake, the database, a Dispatcher, the broker
and a worker. The rows of emails that are tried on this way are taken back before their commit, so
that no list, count or metric has to leave one out, and none can be left behind. There is one at a
time, in one row of the table `canaries`, whose times are the database's. Web and worker processes
send it, one of them at a time: so whichever of them is down, the others notice, and tell.
"""

import asyncio
import time
from datetime import timedelta
from http import HTTPMethod
from typing import TypeAlias
from uuid import UUID, uuid4

import asyncpg
import attrs
import httpx2
import msgspec

from app.alerts import alarms
from app.alerts.alarms import Database, Trouble
from app.durations import in_words
from app.errors import MailroomError
from app.i18n.formats import decimal
from app.i18n.texts import gettext as _
from app.intake.canary import canary_body
from app.intake.openapi import WEBHOOK_PATH
from app.intake.signature import signed_headers
from app.jobs.chores import Chore, ChoreContext
from app.models.alarm import AlarmKind
from app.models.webhook_status import WebhookStatus
from app.outbound.client import Limits, OutboundClient
from app.outbound.errors import OutboundError
from app.outbound.rules import Rules, origin_of
from app.settings import Settings

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

NAME = "canary"
# As long as Zendesk waits for an answer, at least.
LIMITS = Limits(total_seconds=12.0, most_bytes=64 * 1024)
LOOK_EVERY_SECONDS = 0.2
# One alone may fall into a restart.
ALARM_FROM = 2
# What nobody sends has no failures. So many are missed until that is told.
MISSED = 3

BEGIN = """
INSERT INTO canaries (id, token, sent_at) VALUES (1, $1, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET token = excluded.token, sent_at = excluded.sent_at,
    accepted_at = NULL, queued_at = NULL, claimed_at = NULL, completed_at = NULL
"""
SEE = """
SELECT accepted_at, queued_at, claimed_at, completed_at,
    EXISTS (SELECT FROM processing_pauses) AS is_paused
FROM canaries WHERE token = $1
"""
SUCCEED = """
UPDATE canaries SET token = NULL, failures = 0, trouble = NULL,
    completed_total = completed_total + 1, last_completed_at = completed_at,
    accept_seconds = extract(epoch FROM accepted_at - sent_at),
    claim_seconds = extract(epoch FROM claimed_at - sent_at),
    complete_seconds = extract(epoch FROM completed_at - sent_at)
WHERE token = $1
RETURNING complete_seconds
"""
FAIL = """
UPDATE canaries SET token = NULL, failures = failures + 1, failed_total = failed_total + 1,
    trouble = $2
WHERE token = $1
RETURNING failures
"""
# While a person has paused processing, emails go no further either.
GIVE_UP = """
UPDATE canaries SET token = NULL, failures = 0, trouble = NULL WHERE token = $1
"""
SELECT = """
SELECT failures, trouble, completed_total, failed_total, now() - sent_at AS since_sent,
    now() - last_completed_at AS since_completed, accept_seconds, claim_seconds, complete_seconds
FROM canaries
"""


@attrs.frozen
class Standing:
    """How the last canaries fared."""

    failures: int
    """In a row."""
    trouble: str | None
    """Why the last one failed."""
    completed_total: int
    failed_total: int
    since_sent: timedelta | None
    since_completed: timedelta | None
    """None: none ever was."""
    accept_seconds: float | None
    """Of the last that was completed, from the moment at which it was sent."""
    claim_seconds: float | None
    complete_seconds: float | None

    def is_missed(self, settings: Settings) -> bool:
        """Whether nobody sends canaries any more."""
        longest = timedelta(seconds=MISSED * settings.canary_interval_seconds)
        return self.since_sent is not None and self.since_sent > longest

    def is_well(self, settings: Settings) -> bool:
        """Whether nothing is to be mended."""
        return self.failures < ALARM_FROM and not self.is_missed(settings)

    def summary(self, settings: Settings) -> str:
        """All of it in a sentence, for operators."""
        if self.is_missed(settings) and self.since_sent is not None:
            return _("nobody has sent a canary for %(time)s", time=in_words(self.since_sent))
        if self.failures and self.trouble:
            return self.trouble
        if self.since_completed is None or self.complete_seconds is None:
            return _("no canary has been completed yet")
        return _(
            "%(time)s ago a canary went the whole way: accepted after %(accept)s s, claimed after "
            "%(claim)s s, completed after %(complete)s s",
            time=in_words(self.since_completed),
            accept=decimal(self.accept_seconds or 0, 2),
            claim=decimal(self.claim_seconds or 0, 2),
            complete=decimal(self.complete_seconds, 2),
        )


async def find_standing(database: Database) -> Standing | None:
    """How the last canaries fared; None: none was ever sent."""
    row = await database.fetchrow(SELECT)
    return None if row is None else Standing(**row)


class CanaryFailedError(MailroomError):
    """A canary did not go the whole way; the message says how far it came."""

    def __init__(self, text: str, mend: str) -> None:
        super().__init__(text)
        self.trouble = Trouble(text, mend)


def canary_chores(settings: Settings) -> list[Chore]:
    """What sends canaries; nothing where none are wanted."""
    if not settings.canary_seconds:
        return []
    return [Chore(NAME, settings.canary_seconds, lambda context: send_once(settings, context))]


async def send_once(settings: Settings, context: ChoreContext) -> str:
    """Send one, see how it fares, and keep the alarm. Returns that in words.

    Raises:
        Exception: the database is away.
    """
    pool, token = context.pool, uuid4()
    await pool.execute(BEGIN, token)
    try:
        said = await _see_through(settings, context, token)
    except CanaryFailedError as error:
        failures = await pool.fetchval(FAIL, token, str(error))
        if (failures or 0) >= ALARM_FROM:
            await alarms.begin(pool, AlarmKind.CANARY, error.trouble)
        return str(error)
    await alarms.end(pool, AlarmKind.CANARY)
    return said


async def _see_through(settings: Settings, context: ChoreContext, token: UUID) -> str:
    """Send it, and wait until it was completed.

    Raises:
        CanaryFailedError: it is not.
    """
    deadline = time.monotonic() + settings.canary_deadline_seconds
    await _post(settings, token)
    while True:
        seen = await context.pool.fetchrow(SEE, token)
        if seen is None:
            raise CanaryFailedError(
                "another canary took the place of this one",
                "see that all processes have the same MAILROOM_CANARY_SECONDS",
            )
        if seen["completed_at"] is not None:
            seconds = await context.pool.fetchval(SUCCEED, token)
            return f"a canary was completed {seconds or 0.0:.1f} s after it was sent"
        if seen["is_paused"] and seen["accepted_at"] is not None:
            await context.pool.execute(GIVE_UP, token)
            return "a canary was accepted, and goes no further: processing is paused"
        if time.monotonic() > deadline:
            raise _late(seen, settings.canary_deadline_seconds)
        await asyncio.sleep(LOOK_EVERY_SECONDS)


async def _post(settings: Settings, token: UUID) -> None:
    """Send it, as Zendesk sends an email.

    Raises:
        CanaryFailedError: it was not accepted.
    """
    base = settings.canary_address
    url = f"{base}{WEBHOOK_PATH}"
    # The operator named it, wherever it is.
    origin = origin_of(httpx2.URL(base))
    client = OutboundClient(
        Rules(frozenset({origin.host}), internal=frozenset({origin}), most_redirects=0),
        LIMITS,
        ca_file=settings.outbound_ca_file,
    )
    body = canary_body(token)
    headers = signed_headers(settings.webhook_secrets[0].secret, body)
    try:
        async with client.ask(HTTPMethod.POST, url, headers=headers, content=body) as answer:
            status, said = answer.status, await answer.read()
    except OutboundError as error:
        raise CanaryFailedError(
            f"the webhook does not answer at {base} ({error})",
            "see that `mailroom web` runs, and that MAILROOM_CANARY_URL leads to it; "
            "`mailroom doctor --url` tries the way",
        ) from error
    finally:
        await client.aclose()
    if status == 401:
        raise CanaryFailedError(
            f"the webhook at {base} answers 401: it does not know the first secret of "
            "MAILROOM_WEBHOOK_SECRETS",
            "let all processes have the same secrets, and restart those that have others",
        )
    if status != 200:
        raise CanaryFailedError(
            f"the webhook at {base} answers {status}, so emails are not accepted",
            "see the log of `mailroom web`, and `mailroom doctor`",
        )
    if not _is_acknowledged(said):
        raise CanaryFailedError(
            f"somebody else than Mailroom answers at {base}",
            "let MAILROOM_CANARY_URL, or MAILROOM_PUBLIC_URL, lead to Mailroom",
        )


def _late(seen: asyncpg.Record, seconds: float) -> CanaryFailedError:
    within = f"within {seconds:g} seconds"
    if seen["accepted_at"] is None:
        return CanaryFailedError(
            "a canary was accepted by another Mailroom, or by an older version of it",
            "let MAILROOM_CANARY_URL, or MAILROOM_PUBLIC_URL, lead to this one",
        )
    if seen["queued_at"] is None:
        return CanaryFailedError(
            f"emails are accepted, and not queued {within}",
            "see that `mailroom worker` runs, and how many emails wait (`mailroom doctor`)",
        )
    if seen["claimed_at"] is None:
        return CanaryFailedError(
            f"emails are accepted and queued, and no worker takes them {within}",
            "see that `mailroom worker` runs, that the broker does, and that handlers end in time",
        )
    return CanaryFailedError(
        f"emails are accepted and queued, and workers do not complete them {within}",
        "see the log of `mailroom worker`, and `mailroom doctor`",
    )


def _is_acknowledged(said: bytes) -> bool:
    try:
        content = msgspec.json.decode(said)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("status") == WebhookStatus.ACKNOWLEDGED
