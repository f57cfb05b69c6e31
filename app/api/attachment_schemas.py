"""What the API of attachments gives."""

from datetime import datetime
from typing import Annotated

import attrs

from app.api.job_schemas import about
from app.attachments.given import Attachment
from app.models.email_attachment import AttachmentState

EXAMPLE_HASH = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@attrs.frozen(kw_only=True)
class AttachmentSummary:
    """A file that an email names."""

    position: Annotated[int, about("Its place in the list, from 0; it stays", 0)]
    filename: Annotated[str | None, about("As the email says, which may be anything", "a.pdf")]
    state: Annotated[AttachmentState, about("`kept`: its bytes can be downloaded", "kept")]
    reason: Annotated[str | None, about("Why it is not kept, as a word", "too_large")]
    why: Annotated[str | None, about("Why it is not kept, in words")]
    content_type: Annotated[str | None, about("As found in its bytes", "application/pdf")]
    claimed_content_type: Annotated[str | None, about("As the email says")]
    size: Annotated[int | None, about("Bytes, as counted", 12345)]
    claimed_size: Annotated[int | None, about("Bytes, as the email says")]
    sha256: Annotated[str | None, about("Of its bytes, in hex", EXAMPLE_HASH)]
    is_inline: Annotated[bool, about("It is shown within the email's text", False)]
    tries: Annotated[int, about("How often it was tried to be fetched", 1)]
    next_attempt_at: Annotated[datetime | None, about("When it is tried again, if `pending`")]
    fetched_at: Annotated[datetime | None, about("When its bytes were stored")]


@attrs.frozen(kw_only=True)
class AttachmentList:
    """All files that an email names, in their order."""

    items: list[AttachmentSummary]


def summary_of(attachment: Attachment) -> AttachmentSummary:
    """What the API says of a file."""
    is_pending = attachment.state is AttachmentState.PENDING
    return AttachmentSummary(
        position=attachment.position,
        filename=attachment.filename,
        state=attachment.state,
        reason=attachment.reason,
        why=attachment.why,
        content_type=attachment.content_type,
        claimed_content_type=attachment.claimed_content_type,
        size=attachment.size,
        claimed_size=attachment.claimed_size,
        sha256=attachment.sha256 if attachment.is_kept else None,
        is_inline=attachment.is_inline,
        tries=attachment.tries,
        next_attempt_at=attachment.next_attempt_at if is_pending else None,
        fetched_at=attachment.fetched_at,
    )
