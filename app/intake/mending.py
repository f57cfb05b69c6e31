"""How an operator gets an email out of the quarantine that no retry can admit: what keeps it out,
and its admission after its text was mended by hand."""

from datetime import datetime
from uuid import UUID

import asyncpg
import attrs

from app.audit.actors import Actor
from app.audit.acts import Act
from app.errors import MailroomError
from app.i18n.texts import gettext as _
from app.intake.admission import Admission
from app.intake.charset import decode_with_gaps
from app.intake.intake import Intake
from app.intake.refusals import Refusal, discard
from app.intake.refused import RefusedError
from app.intake.signature import (
    INVOCATION_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    when_signed,
)
from app.intake.unstorable import UnstorableError
from app.models.quarantined_webhook import RefusalReason
from app.telemetry.request_id import uuid7

# Larger ones are mended in a file.
LARGEST_ON_A_PAGE = 1024 * 1024


class MendingError(MailroomError):
    """A refused webhook cannot be admitted in this way; the message says in which it can."""


@attrs.frozen
class Findings:
    """What an operator has to know of a refused webhook."""

    is_genuine: bool
    """Its signature is right by today's secrets, or it is of Zendesk's API: Zendesk's it is."""

    wrong: list[str]
    """What is wrong with the text, in words; empty where it is an email."""


def examine_for_page(intake: Intake, refusal: Refusal, body: bytes | None = None) -> Findings:
    """As `examine`, for a page or an API: what is large holds up no other request."""
    if len((refusal.body if body is None else body) or b"") > LARGEST_ON_A_PAGE:
        said = _(
            "it is not looked at here, because it is larger than %(most)s bytes: "
            "`mailroom quarantine show %(id)s` does it",
            most=LARGEST_ON_A_PAGE,
            id=refusal.id,
        )
        return Findings(is_genuine=_is_genuine(intake, refusal), wrong=[said])
    return examine(intake, refusal, body)


def examine(intake: Intake, refusal: Refusal, body: bytes | None = None) -> Findings:
    """Look at a refused webhook as it came, or with a mended body."""
    text = _readable(refusal) if body is None else body
    if text is None:
        wrong = [_("the body was not kept, because it was too large")]
    else:
        wrong = what_is_wrong(intake, text)
    return Findings(is_genuine=_is_genuine(intake, refusal), wrong=wrong)


def what_is_wrong(intake: Intake, body: bytes) -> list[str]:
    """What keeps a body from being an email, a sentence each."""
    try:
        intake.check(body)
    except (RefusedError, UnstorableError) as error:
        named = getattr(error, "errors", None)
        return [f"{one.field}: {one.message}" for one in named] if named else [str(error)]
    return []


def as_text(refusal: Refusal) -> str:
    """The body as text to be mended, by its charset: bytes that are none of it are U+FFFD."""
    return decode_with_gaps(refusal.body or b"", refusal.headers.get("content-type"))[0]


async def admit_mended(
    intake: Intake,
    pool: "asyncpg.Pool[asyncpg.Record]",
    refusal: Refusal,
    *,
    body: bytes | None = None,
    by: str,
    actor: Actor | None = None,
    accept_unsigned: bool = False,
    without_sender: bool = False,
) -> Admission:
    """Admit a refused webhook on an operator's word, with its time of receipt.

    Args:
        body: what the operator made of it; as it came, where it is None. The original stays with
            the email.
        by: who does it; stands in the email's story.
        accept_unsigned: the operator knows that it comes from Zendesk, though no signature says so.
        without_sender: its sender is not known, and nobody's address is written in its place.

    Raises:
        MendingError: its body was not kept, or its signature is not right.
        RefusedError: it is still no email.
        NotStoredError, UnstorableError: it could not be made durable.
    """
    text = _readable(refusal) if body is None else body
    if text is None:
        raise MendingError(
            _("its body was not kept, because it was too large: give the text that Zendesk sent")
        )
    is_genuine = _is_genuine(intake, refusal)
    if not is_genuine and not accept_unsigned:
        raise MendingError(
            _(
                "its signature fits none of the active secrets, so anybody may have sent it: mend "
                "MAILROOM_WEBHOOK_SECRETS and retry it, or say that it is to be accepted unsigned, "
                "where a proxy changed the body or you know its sender"
            )
        )
    admission = await intake.admit_mended(
        text,
        email_id=uuid7(),
        original=refusal.body if text != refusal.body else None,
        # Whoever admits it twice gets one email, and so does a replay of what Zendesk signed.
        signature=_signature(refusal) if is_genuine else _own_signature(refusal.id),
        invocation_id=refusal.headers.get(INVOCATION_HEADER),
        received_at=refusal.received_at,
        signed_at=_signed_at(refusal) if is_genuine else None,
        without_sender=without_sender,
        by=by,
    )
    await discard(pool, [refusal.id], actor=actor, act=Act.QUARANTINE_ADMIT)
    return admission


def _readable(refusal: Refusal) -> bytes | None:
    """The body in UTF-8, whatever it came in."""
    if refusal.body is None:
        return None
    try:
        refusal.body.decode()
    except UnicodeDecodeError:
        return as_text(refusal).encode("utf-8", "replace")
    return refusal.body


def _is_genuine(intake: Intake, refusal: Refusal) -> bool:
    if refusal.reason is RefusalReason.SUSPENDED:
        # It came from Zendesk's API, which needs no signature.
        return True
    return refusal.body is not None and intake.is_signed(
        refusal.body,
        refusal.headers.get(SIGNATURE_HEADER),
        refusal.headers.get(TIMESTAMP_HEADER),
        now=refusal.received_at,
    )


def _signed_at(refusal: Refusal) -> datetime | None:
    timestamp = refusal.headers.get(TIMESTAMP_HEADER)
    return None if timestamp is None else when_signed(timestamp)


def _signature(refusal: Refusal) -> str:
    return refusal.headers.get(SIGNATURE_HEADER) or _own_signature(refusal.id)


def _own_signature(refusal_id: UUID) -> str:
    return f"quarantine:{refusal_id}"
