"""Refused webhooks are looked at anew by today's settings, and what passes is admitted."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

from app.database.errors import DATABASE_AWAY
from app.intake.intake import Intake
from app.intake.refusals import Refusal
from app.intake.refused import RefusedError
from app.intake.row_writer import NotStoredError
from app.intake.signature import INVOCATION_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from app.models.quarantined_webhook import RefusalReason
from app.telemetry.request_id import uuid7


class Again(StrEnum):
    """What became of one."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """It had been admitted before."""

    REFUSED = "refused"
    SUSPENDED = "suspended"
    """Nothing was refused: Zendesk suspended it, and each is for somebody to look at."""

    NOT_STORED = "not stored"
    """The database is away or too busy, or Mailroom fails on it: it can be tried again."""

    @property
    def leaves(self) -> bool:
        """Whether it is an email now, and needs its place in the quarantine no longer."""
        return self in (Again.ACCEPTED, Again.DUPLICATE)


async def try_again(intake: Intake, page: Sequence[Refusal]) -> dict[UUID, Again]:
    """Verify these anew and admit what passes, with its time of receipt. They stay in the
    quarantine until the caller discards them."""
    results = await asyncio.gather(*(_try_again(intake, refusal) for refusal in page))
    return {refusal.id: result for refusal, result in zip(page, results, strict=True)}


async def _try_again(intake: Intake, refusal: Refusal) -> Again:
    if refusal.reason is RefusalReason.SUSPENDED:
        return Again.SUSPENDED
    if refusal.body is None:
        return Again.REFUSED
    try:
        admission = await intake.admit(
            refusal.body,
            email_id=uuid7(),
            signature=refusal.headers.get(SIGNATURE_HEADER),
            timestamp=refusal.headers.get(TIMESTAMP_HEADER),
            invocation_id=refusal.headers.get(INVOCATION_HEADER),
            content_type=refusal.headers.get("content-type"),
            received_at=refusal.received_at,
        )
    except RefusedError:
        return Again.REFUSED
    except (NotStoredError, *DATABASE_AWAY):
        return Again.NOT_STORED
    if admission.unreadable is not None:
        return Again.REFUSED
    return Again.DUPLICATE if admission.is_duplicate else Again.ACCEPTED
