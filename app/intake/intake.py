"""The Intake: what happens to a webhook between its bytes and the answer 200.

It knows nothing of HTTP beyond the three headers that Zendesk signs or sends.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.attachments.hosts import own_hosts
from app.intake import erasures, waiting_files
from app.intake.admission import Admission
from app.intake.canary import make_canary_row
from app.intake.doors import as_mended, as_recovered, unchanged
from app.intake.email_row import EmailRow, make_broken_row, make_event_row, make_row
from app.intake.encoded_texts import decode_texts
from app.intake.events import Event, event_key, is_event, read_event
from app.intake.field_orders import FieldOrders
from app.intake.json_body import CONTROL_CHARACTERS, BrokenBodyError, JsonBody
from app.intake.payload import CheckedPayload, check_payload
from app.intake.placeholders import refuse_unrendered
from app.intake.reader import BodyReader
from app.intake.reused_ids import ReusedIds
from app.intake.secret_uses import SecretUses
from app.intake.signature import SignatureRefusedError, verify, when_signed
from app.intake.unstorable import telling_defects
from app.intake.writer import EmailWriter
from app.models.zendesk_event import EventKind
from app.settings import Settings
from app.telemetry.metrics import EVENTS, MENDED, Mending

log = structlog.get_logger(__name__)

# What PostgreSQL takes some hundredths of a second for, beside which a commit is cheap.
BATCH_BYTES = 1024 * 1024
FULL_AT_ONCE = 2
CONNECTIONS = 1 + FULL_AT_ONCE
"""How many an Intake uses at once, for emails."""

# Stands for the sender while an email without one is checked; it is never stored.
_NOBODY = "nobody@invalid"


class Intake:
    """Admits webhooks: verified, read, stored.

    Args:
        pool: for emails.
        event_pool: for events that are none, which wait for each other; `pool` if it is not given.
    """

    def __init__(
        self,
        settings: Settings,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        event_pool: "asyncpg.Pool[asyncpg.Record] | None" = None,
    ) -> None:
        self._pool = pool
        self._event_pool = event_pool or pool
        self._reader = BodyReader(settings, pool)
        self._secrets = settings.webhook_secrets
        self.secret_uses = SecretUses(self._secrets)
        self._accept_unsigned = settings.accept_unsigned
        self._day_first = settings.day_first
        self._hosts = own_hosts(settings)
        self._max_age_seconds = settings.signature_max_age_seconds
        self._reused_ids = ReusedIds()
        self._writer = EmailWriter(
            pool,
            batch_rows=settings.intake_batch_rows,
            batch_bytes=BATCH_BYTES,
            full_at_once=FULL_AT_ONCE,
            max_waiting=settings.intake_max_waiting_rows,
            deadline_seconds=settings.intake_deadline_seconds,
        )

    async def admit(
        self,
        body: bytes,
        *,
        email_id: UUID,
        signature: str | None,
        timestamp: str | None,
        invocation_id: str | None,
        content_type: str | None = None,
        received_at: datetime | None = None,
        recovered: str | None = None,
    ) -> Admission:
        """Verify, read and store one webhook, as if it were `received_at`; else it is now.

        `recovered` tells by which record of Zendesk's it came, where it did not come by itself.

        `email_id` becomes the id of the email, unless it is a duplicate. What Zendesk signed and
        nobody can read is stored too, as `failed`.

        Raises:
            SignatureRefusedError: it does not prove that it comes from Zendesk.
            UnreadableBodyError: it is not a JSON object, and nobody signed it, or it is blank or
                JSON of another type.
            InvalidPayloadError: fields are missing or wrong.
            NotStoredError: it could not be made durable.
            UnstorableError: it cannot be so, for a defect of ours or by the database's refusal.
        """
        now = received_at or datetime.now(UTC)
        finish = unchanged if recovered is None else as_recovered(recovered)
        with telling_defects():
            is_signed = bool(signature or timestamp) or not self._accept_unsigned
            signed = None
            if is_signed:
                label = self._verify(body, signature, timestamp, now)
                signed = when_signed(timestamp or "")
                if received_at is None:
                    self.secret_uses.saw(label)
            try:
                json_body = await self._reader.read(body, content_type, is_signed=is_signed)
            except BrokenBodyError as error:
                if not is_signed:
                    raise
                MENDED.labels(Mending.UNREADABLE).inc()
                row = make_broken_row(
                    body,
                    str(error),
                    email_id=email_id,
                    invocation_id=invocation_id,
                    signature=str(signature),
                    now=now,
                    signed_at=signed,
                )
                return await self._writer.store(finish(row))
            return await self._take(
                body,
                json_body,
                email_id=email_id,
                invocation_id=invocation_id,
                signature=signature or None,
                now=now,
                signed_at=signed,
                finish=finish,
            )

    async def admit_canary(
        self, body: bytes, token: UUID, *, signature: str | None, timestamp: str | None
    ) -> Admission:
        """Try whether an email could be verified, read and stored now; nothing is.

        Raises:
            SignatureRefusedError, NotStoredError: as in `admit`.
        """
        now = datetime.now(UTC)
        self._verify(body, signature, timestamp, now)
        return await self._writer.store(make_canary_row(token, now))

    async def admit_mended(
        self,
        body: bytes,
        *,
        email_id: UUID,
        original: bytes | None,
        signature: str,
        invocation_id: str | None,
        received_at: datetime,
        signed_at: datetime | None = None,
        without_sender: bool,
        by: str,
    ) -> Admission:
        """Store a webhook that an operator answers for, as if it were `received_at`.

        Args:
            original: the bytes as they came, where the operator changed them.
            signature: by which it is recognised when it is admitted again.
            signed_at: when Zendesk signed it, if it did.
            without_sender: its sender is not known; `from_email` is empty then.
            by: the operator.

        Raises:
            UnreadableBodyError, InvalidPayloadError, NotStoredError, UnstorableError: as in
                `admit`.
        """
        with telling_defects():
            return await self._take(
                body,
                self._reader.read_whole(body),
                email_id=email_id,
                invocation_id=invocation_id,
                signature=signature,
                now=received_at,
                signed_at=signed_at,
                without_sender=without_sender,
                finish=as_mended(original, by, received_at),
            )

    async def _take(
        self,
        body: bytes,
        json_body: JsonBody,
        *,
        email_id: UUID,
        now: datetime,
        signed_at: datetime | None,
        invocation_id: str | None,
        signature: str | None,
        without_sender: bool = False,
        finish: Callable[[EmailRow], EmailRow],
    ) -> Admission:
        if json_body.mended:
            MENDED.labels(Mending.REPAIRED).inc()
        if not is_event(json_body.fields):
            payload = _check(json_body, without_sender=without_sender)
            # A line break that is not escaped says nothing against where the fields stand.
            if signature is not None and set(json_body.mended) <= {CONTROL_CHARACTERS}:
                self._reader.learn(json_body.fields)
            row = make_row(
                body,
                json_body,
                payload,
                email_id=email_id,
                invocation_id=invocation_id,
                signature=signature,
                now=now,
                signed_at=signed_at,
                day_first=self._day_first,
                hosts=self._hosts,
            )
            row = attrs.evolve(row, from_email="") if without_sender else row
            admission = await self._writer.store(finish(row))
            self._reused_ids.look_at(row)
            return admission
        event = read_event(json_body.fields, now)
        EVENTS.labels(event.kind).inc()
        if event.kind is not EventKind.EMAIL:
            # Without an id of its own, the delivery's or the email's serves: both are unique.
            key = event.key or event_key(event.account_id, invocation_id or str(email_id))
            return await self._heed(event, str(key))
        files = await waiting_files.find_waiting(self._pool, event)
        row = make_event_row(
            body,
            json_body,
            event,
            files,
            email_id=email_id,
            invocation_id=invocation_id,
            signature=signature,
            now=now,
            signed_at=signed_at,
            hosts=self._hosts,
        )
        admission = await self._writer.store(finish(row))
        if admission.email_id is not None:
            await waiting_files.join_waiting(self._event_pool, event, admission.email_id)
        return admission

    async def _heed(self, event: Event, key: str) -> Admission:
        """Do what an event asks for that is no email."""
        email_id = None
        match event.kind:
            case EventKind.ATTACHMENT:
                email_id = await waiting_files.keep_attachment(self._event_pool, event, key)
            case EventKind.ERASURE:
                await erasures.erase(self._event_pool, event, key)
            case EventKind.RESTORE:
                await erasures.restore(self._event_pool, event, key)
            case _:
                log.debug("event_is_no_email")
        return Admission(email_id, is_duplicate=False, is_email=False)

    def check(self, body: bytes) -> None:
        """See whether a body can be stored.

        Raises:
            UnreadableBodyError: it is not a JSON object, or a field comes twice.
            InvalidPayloadError: fields are missing or wrong.
            UnstorableError: as in `admit`.
        """
        with telling_defects():
            json_body = self._reader.read_whole(body)
            if not is_event(json_body.fields):
                _check(json_body)

    @property
    def orders(self) -> FieldOrders:
        """What is known of the fields of the templates."""
        return self._reader.orders

    def is_signed(
        self,
        body: bytes,
        signature: str | None,
        timestamp: str | None,
        *,
        now: datetime | None = None,
    ) -> bool:
        """Whether it comes from Zendesk, whatever else is wrong with it."""
        try:
            self._verify(body, signature, timestamp, now or datetime.now(UTC))
        except SignatureRefusedError:
            return False
        return True

    def _verify(
        self, body: bytes, signature: str | None, timestamp: str | None, now: datetime
    ) -> str:
        return verify(
            signature=signature,
            timestamp=timestamp,
            body=body,
            secrets=self._secrets,
            max_age_seconds=self._max_age_seconds,
            now=now,
        )

    async def close(self) -> None:
        """Store what was accepted, then stop."""
        await self._writer.close()


def _check(json_body: JsonBody, *, without_sender: bool = False) -> CheckedPayload:
    fields = decode_texts(json_body.fields)
    payload = check_payload({**fields, "from_email": _NOBODY} if without_sender else fields)
    refuse_unrendered(payload)
    return payload
