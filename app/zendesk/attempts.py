"""What became of one call that was not delivered: the requests in Zendesk's record of its attempts
go through the same Intake as those that come.
"""

from datetime import datetime
from uuid import UUID

import asyncpg
import attrs
import structlog

from app.intake.intake import Intake
from app.intake.quarantine import Quarantine
from app.intake.refusals import KEPT_HEADERS, Refusal, id_of_call
from app.intake.refused import RefusedError
from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.intake.unstorable import UnstorableError
from app.models.fit import in_utc
from app.models.quarantined_webhook import RefusalReason
from app.models.zendesk_watch import Outcome
from app.telemetry.request_id import uuid7
from app.zendesk import cursors, invocation_rows
from app.zendesk.client import ZendeskClient
from app.zendesk.errors import ZendeskNotFoundError, ZendeskRefusedError, ZendeskShapeError
from app.zendesk.invocation_rows import Waiting
from app.zendesk.webhooks import Attempt, list_attempts

log = structlog.get_logger(__name__)

NO_ROOM = (
    "the quarantine has no room for calls that Zendesk sent and that are refused here: discard "
    "what is not needed with `mailroom quarantine discard`, or raise MAILROOM_QUARANTINE_MAX_ROWS "
    "and MAILROOM_QUARANTINE_MAX_BYTES"
)

# In the place of an address, in the quarantine.
FROM_ZENDESK = "zendesk"


@attrs.frozen
class Attempts:
    """Looks into invocations, one after the other."""

    _pool: "asyncpg.Pool[asyncpg.Record]"
    _client: ZendeskClient
    _intake: Intake
    _quarantine: Quarantine

    async def look_into(self, invocation: Waiting) -> Outcome:
        """See to one invocation, and note what became of it. Where there is no room for its
        request, it goes on waiting.

        Raises:
            NotStoredError: the database does not take it now.
            ZendeskError: Zendesk cannot be asked.
        """
        outcome, email_id = await self._look(invocation)
        if outcome is Outcome.WAITING:
            name = f"{invocation_rows.CURSOR}{invocation.webhook_id}"
            await cursors.set_trouble(self._pool, name, NO_ROOM)
            await invocation_rows.put_off(self._pool, invocation.id)
            return outcome
        await invocation_rows.end(self._pool, invocation.id, outcome, email_id)
        if outcome is Outcome.RECOVERED:
            log.info("email_recovered", email_id=str(email_id), invocation=invocation.id)
        return outcome

    async def _look(self, invocation: Waiting) -> tuple[Outcome, UUID | None]:
        try:
            page = await list_attempts(self._client, invocation.webhook_id, invocation.id)
        except ZendeskNotFoundError:
            return Outcome.GONE, None
        except (ZendeskShapeError, ZendeskRefusedError) as error:
            # The others are not kept waiting for it.
            await cursors.keep_odd(
                self._pool, "attempts", [{"invocation": invocation.id, "error": str(error)}]
            )
            return Outcome.ODD, None
        await cursors.keep_odd(self._pool, "attempt", page.odd)
        found: tuple[Outcome, UUID | None] = (Outcome.NO_REQUEST, None)
        if page.odd and not page.items:
            found = (Outcome.ODD, None)
        for attempt in page.items:
            if attempt.request is not None and attempt.request.payload is not None:
                found = await self._admit(invocation.id, attempt, attempt.request.payload)
                if found[0] not in (Outcome.QUARANTINED, Outcome.WAITING):
                    break
        return found

    async def _admit(
        self, invocation_id: str, attempt: Attempt, payload: str
    ) -> tuple[Outcome, UUID | None]:
        # Half of a surrogate pair is no UTF-8, as it was none when it came.
        headers, body = attempt.headers, payload.encode("utf-8", "surrogatepass")
        sent_at = _sent_at(attempt)
        refusal = Refusal(
            id=id_of_call(invocation_id, body),
            received_at=sent_at,
            reason=RefusalReason.SIGNATURE,
            detail="",
            remote_address=FROM_ZENDESK,
            headers={name: headers[name] for name in KEPT_HEADERS if name in headers},
            body=body,
        )
        signature, timestamp = headers.get(SIGNATURE_HEADER), headers.get(TIMESTAMP_HEADER)
        try:
            admission = await self._intake.admit(
                body,
                email_id=uuid7(),
                signature=signature,
                timestamp=timestamp,
                invocation_id=headers.get(INVOCATION_HEADER, invocation_id),
                content_type=headers.get("content-type"),
                received_at=sent_at,
                recovered=f"Zendesk's record of the invocation {invocation_id}",
            )
        except (RefusedError, UnstorableError) as error:
            if not await invocation_rows.is_in_quarantine(self._pool, invocation_id):
                is_signed = error.reason is not RefusalReason.SIGNATURE
                is_kept = await self._quarantine.store(
                    attrs.evolve(
                        refusal,
                        reason=error.reason,
                        detail=str(error),
                        is_signed=is_signed
                        and self._intake.is_signed(body, signature, timestamp, now=sent_at),
                    )
                )
                if not is_kept:
                    return Outcome.WAITING, None
            return Outcome.QUARANTINED, None
        if admission.unreadable is not None and admission.email_id is not None:
            is_kept = await self._quarantine.store(
                attrs.evolve(
                    refusal,
                    id=admission.email_id,
                    reason=RefusalReason.UNREADABLE,
                    detail=admission.unreadable,
                    is_signed=True,
                )
            )
            if not is_kept:
                return Outcome.WAITING, None
        if not admission.is_email:
            return Outcome.NO_EMAIL, None
        outcome = Outcome.HAD if admission.is_duplicate else Outcome.RECOVERED
        return outcome, admission.email_id


def _sent_at(attempt: Attempt) -> datetime:
    """When it was sent, by which its signature is not too old."""
    try:
        return in_utc(datetime.fromisoformat(attempt.headers.get(TIMESTAMP_HEADER, "")))
    except (ValueError, OverflowError):
        return in_utc(attempt.completed_at)
