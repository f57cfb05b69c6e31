"""Workers at `/workers`: who is there, and what each does right now and for how long."""

from collections import Counter
from datetime import datetime
from typing import Any

from litestar import Request, get
from litestar.response import Redirect, Template

from app.database.engine import running_pool
from app.database.errors import CANNOT_ASK
from app.desk.addresses import EMAILS_PATH, address
from app.desk.addresses import WORKERS_PATH as PATH
from app.desk.lists import Cell, Listing, Row
from app.desk.pages import PageController, page, to_sign_in
from app.desk.sign_in import database_is_away, signed_in
from app.durations import in_words
from app.i18n.stored_texts import as_told
from app.i18n.texts import gettext as _
from app.jobs.heartbeat import SILENT_AFTER
from app.models.worker import Worker

LISTED = 200

WORKERS = """
SELECT name, threads, started_at, GREATEST(now() - seen_at, interval '0') AS silence
FROM workers ORDER BY started_at, name
"""
# Those in work are few; the one that takes longest first.
IN_WORK = """
SELECT id, subject, claimed_by, started_at, lease_expires_at < now() AS is_lost
FROM incoming_emails WHERE processing_status = 'processing' ORDER BY started_at LIMIT $1
"""
CHORES = """
SELECT name, running_by, last_started_at, last_note FROM chores
WHERE token IS NOT NULL AND lease_expires_at > now() ORDER BY last_started_at
"""


class WorkerPages(PageController):
    """The page."""

    path = PATH

    @get()
    async def show(self, request: Request[Any, Any, Any]) -> Template | Redirect:
        """The processes, their emails and their chores."""
        user = await signed_in(request.scope)
        if user is None:
            return to_sign_in(request)
        try:
            async with running_pool().acquire() as connection:
                now: datetime = await connection.fetchval("SELECT now()")
                workers = await connection.fetch(WORKERS)
                emails = await connection.fetch(IN_WORK, LISTED + 1)
                chores = await connection.fetch(CHORES)
        except CANNOT_ASK as error:
            raise database_is_away() from error
        held = Counter(row["claimed_by"] for row in emails)
        return page(
            request,
            "workers.html",
            user,
            table=Worker,
            workers=Listing(
                columns=(_("Worker"), _("Since"), _("Last heard of"), _("Emails in work")),
                rows=[_worker(row, held[row["name"]]) for row in workers],
            ),
            emails=Listing(
                columns=(_("Email"), _("Worker"), _("For")),
                rows=[_email(row, now) for row in emails[:LISTED]],
            ),
            has_more=len(emails) > LISTED,
            chores=Listing(
                columns=(_("Chore"), _("Worker"), _("For")),
                rows=[_chore(row, now) for row in chores],
            ),
        )


def _worker(row: Any, held: int) -> Row:
    is_silent = row["silence"] >= SILENT_AFTER
    return Row(
        row["name"],
        row["name"],
        [
            Cell(text=row["name"]),
            Cell(at=row["started_at"]),
            Cell(text=_("%(time)s ago", time=in_words(row["silence"])), is_bad=is_silent),
            Cell(text=_("%(done)s of %(total)s", done=held, total=row["threads"])),
        ],
    )


def _email(row: Any, now: datetime) -> Row:
    subject = row["subject"] or _("(no subject)")
    return Row(
        row["id"],
        subject,
        [
            Cell(text=subject, href=f"{address(EMAILS_PATH)}/{row['id']}"),
            Cell(text=row["claimed_by"] or "", note=_("vanished") if row["is_lost"] else None),
            Cell(text=_since(row["started_at"], now), is_bad=bool(row["is_lost"])),
        ],
    )


def _chore(row: Any, now: datetime) -> Row:
    return Row(
        row["name"],
        row["name"],
        [
            Cell(text=row["name"], note=row["last_note"] and as_told(row["last_note"])),
            Cell(text=row["running_by"]),
            Cell(text=_since(row["last_started_at"], now)),
        ],
    )


def _since(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else in_words(max(now - moment, now - now))
