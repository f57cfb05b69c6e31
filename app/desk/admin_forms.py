"""The forms of `/admin`: what an operator may do with emails.

Each goes through transitions, which keep the operator's name with the email.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import structlog
from piccolo_admin.endpoints import FormConfig
from pydantic import BaseModel, Field
from starlette.requests import Request

from app.api import emails
from app.api.emails import Search
from app.database.engine import running_pool
from app.jobs.transitions import operators
from app.jobs.transitions.common import Database
from app.models.fit import fit_text
from app.models.incoming_email import ProcessingStatus

log = structlog.get_logger(__name__)

# They are changed in one transaction, which locks them until its end.
MOST_IDS = 200

AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class RetryForm(BaseModel):
    """What the form asks for."""

    email_ids: str = Field(title=f"Ids, up to {MOST_IDS}")
    force: bool = Field(default=False, title="Also completed ones")


class RetryFailedForm(BaseModel):
    """What the form asks for."""

    error: str = Field(default="", title="Text in the error (empty: any)")
    failed_since: datetime | None = Field(default=None, title="Failed since (empty: ever)")
    failed_until: datetime | None = Field(default=None, title="Failed until (empty: now)")
    only_count: bool = Field(default=True, title="Only count them")


class SettleForm(BaseModel):
    """What the form asks for."""

    email_ids: str = Field(title=f"Ids, up to {MOST_IDS}")
    reason: str = Field(min_length=1, max_length=500, title="Why, for those who look later")
    discard: bool = Field(default=False, title="Discard: nothing came of it, such as spam")


async def _retry(request: Request, form: RetryForm) -> str:
    by = request.user.user.username

    async def retry(database: Database, email_id: UUID) -> bool:
        return await operators.retry(database, email_id, by=by, force=form.force)

    states = "failed or completed, or erased since" if form.force else "failed"
    changed, left = await _change_each(_read_ids(form.email_ids), retry)
    for email_id in changed:
        log.info("retried", email_id=str(email_id), by=_for_log(request))
    return _tell(changed, "queued again", left, states)


async def _retry_failed(request: Request, form: RetryFailedForm) -> str:
    search = Search(
        status=(ProcessingStatus.FAILED,),
        error=form.error or None,
        completed_from=form.failed_since,
        completed_until=form.failed_until,
    )
    if form.only_count:
        found = await emails.count_matching(running_pool(), search)
        return f"{found} failed emails would be retried. Nothing was changed."
    retried = await emails.retry_failed(running_pool(), search, by=request.user.user.username)
    if retried:
        log.info("retried_in_bulk", emails=retried, by=_for_log(request))
    return f"{retried} emails are queued again."


async def _settle(request: Request, form: SettleForm) -> str:
    if form.reason != fit_text(form.reason):
        raise ValueError("The reason holds a NUL or half a character: PostgreSQL cannot keep it.")
    by = request.user.user.username

    async def settle(database: Database, email_id: UUID) -> bool:
        return await operators.settle(
            database, email_id, by=by, reason=form.reason, discard=form.discard
        )

    changed, left = await _change_each(_read_ids(form.email_ids), settle)
    for email_id in changed:
        log.info("settled", email_id=str(email_id), discarded=form.discard, by=_for_log(request))
    return _tell(changed, "completed", left, "failed")


def _for_log(request: Request) -> str:
    """The operator, whose name is personal data and stands with the email alone."""
    return f"user:{request.user.user.id}"


def _read_ids(text: str) -> list[UUID]:
    """Ids as people paste them: between spaces, commas or lines.

    Raises:
        ValueError: one of them is no id, or there are none or too many.
    """
    # The page has a field of one line, in which some browsers join the lines that are pasted.
    apart = AN_ID.sub(r" \g<0> ", text)
    words = [word for word in re.split(r"[\s,;]+", apart) if word]
    if not words:
        raise ValueError("No id is given.")
    ids: dict[UUID, None] = {}
    for word in words:
        try:
            ids[UUID(word)] = None
        except ValueError as error:
            raise ValueError(f"This is no id of an email: {word[:60]}") from error
    if len(ids) > MOST_IDS:
        raise ValueError(f"These are {len(ids)} ids: {MOST_IDS} at once are possible.")
    return list(ids)


async def _change_each(
    ids: list[UUID], change: Callable[[Database, UUID], Awaitable[bool]]
) -> tuple[list[UUID], list[UUID]]:
    """Change all in one transaction.

    Returns:
        Those that were changed, and those that were in no state for it.
    """
    async with running_pool().acquire() as connection, connection.transaction():
        # Two lists of the same emails in another order would wait for each other.
        changed = {email_id for email_id in sorted(ids) if await change(connection, email_id)}
    return [one for one in ids if one in changed], [one for one in ids if one not in changed]


def _tell(changed: list[UUID], become: str, left: list[UUID], states: str) -> str:
    """What the operator reads.

    Raises:
        ValueError: nothing was changed.
    """
    rest = f"Not {states}, so left alone: {', '.join(map(str, left))}." if left else ""
    if not changed:
        raise ValueError(f"Nothing was changed. {rest}")
    count = "1 email is" if len(changed) == 1 else f"{len(changed)} emails are"
    return f"{count} {become}. {rest}".strip()


FORMS = [
    FormConfig(
        name="Retry by id",
        pydantic_model=RetryForm,
        endpoint=_retry,
        description="Failed emails are processed again from their first attempt.",
    ),
    FormConfig(
        name="Retry failed emails",
        pydantic_model=RetryFailedForm,
        endpoint=_retry_failed,
        description="All that failed with an error and in a time. Times are UTC.",
    ),
    FormConfig(
        name="Settle by id",
        pydantic_model=SettleForm,
        endpoint=_settle,
        description="Failed emails become completed unprocessed; your name is kept.",
    ),
]
