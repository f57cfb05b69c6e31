"""Ways between a row of Piccolo Admin and the page of the desk that shows what the row is about.

Tables that no page shows have no way; a test names them, and why.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import asyncpg
import attrs
from piccolo.table import Table

from app.desk.addresses import (
    AUDIT_PATH,
    BULK_PATH,
    DELIVERIES_PATH,
    EMAILS_PATH,
    PEOPLE_PATH,
    QUARANTINE_PATH,
    ROWS_PATH,
    SUSPENDED_PATH,
    WORKERS_PATH,
    address,
    admin_address,
)
from app.desk.operators import Operator
from app.jobs.transitions.common import Database
from app.models.alarm import Alarm
from app.models.audit_entry import AuditEntry
from app.models.bulk_action import BulkAction, BulkActionEmail
from app.models.canary import Canary
from app.models.chore import ChoreRecord
from app.models.delivery import SyncEvent, SyncReceiver
from app.models.email_attachment import EmailAttachment
from app.models.email_event import EmailEvent
from app.models.incoming_email import IncomingEmail
from app.models.operator_account import OperatorAccount
from app.models.processing_pause import ProcessingPause
from app.models.quarantined_webhook import QuarantinedWebhook
from app.models.search import SavedSearch, SearchEntry
from app.models.suspended_ticket import SuspendedTicket
from app.models.worker import Worker
from app.models.zendesk_event import WaitingAttachment, ZendeskErasure
from app.models.zendesk_ranges import ZendeskRanges
from app.models.zendesk_watch import (
    ZendeskCursor,
    ZendeskInvocation,
    ZendeskOddity,
    ZendeskTicketInQuestion,
    ZendeskUnseenTicket,
)

OVERVIEW = "/"


@attrs.frozen
class Way:
    """From a row of a table to its page."""

    table: type[Table]
    columns: Sequence[str]
    """What the page's path is made of, in SQL."""
    path: Callable[..., str]


def _email(email_id: UUID) -> str:
    return f"{EMAILS_PATH}/{email_id}"


def _search(path: str, text: str) -> str:
    return f"{path}?{urlencode({'q': text})}"


def _of_ticket(ticket_id: str) -> str:
    return _search(EMAILS_PATH, f"ticket:{ticket_id}")


def _overview(_: object) -> str:
    return OVERVIEW


WAYS: Mapping[str, Way] = {
    way.table._meta.tablename: way
    for way in (
        Way(IncomingEmail, ["id"], _email),
        Way(EmailAttachment, ["email"], lambda email: f"{_email(email)}#files"),
        Way(EmailEvent, ["email"], lambda email: f"{_email(email)}#happened"),
        Way(SearchEntry, ["email"], _email),
        Way(BulkAction, ["id"], lambda action: f"{BULK_PATH}/{action}"),
        Way(BulkActionEmail, ["action"], lambda action: f"{BULK_PATH}/{action}"),
        Way(QuarantinedWebhook, ["id"], lambda refusal: f"{QUARANTINE_PATH}/{refusal}"),
        Way(SuspendedTicket, ["id"], lambda mail: _search(SUSPENDED_PATH, f"id:{mail}")),
        # What is told of an erasure outlives the email.
        Way(
            SyncEvent,
            ["(SELECT id FROM incoming_emails WHERE id = sync_events.email)"],
            lambda email: DELIVERIES_PATH if email is None else _email(email),
        ),
        Way(SyncReceiver, ["name"], lambda name: DELIVERIES_PATH),
        Way(WaitingAttachment, ["ticket_id"], _of_ticket),
        Way(ZendeskErasure, ["ticket_id"], _of_ticket),
        Way(ZendeskTicketInQuestion, ["ticket_id"], _of_ticket),
        Way(ZendeskUnseenTicket, ["ticket_id"], _of_ticket),
        Way(
            ZendeskInvocation,
            ["email"],
            lambda email: OVERVIEW if email is None else _email(email),
        ),
        Way(ZendeskCursor, ["name"], _overview),
        Way(ZendeskOddity, ["id"], _overview),
        Way(ZendeskRanges, ["account"], _overview),
        Way(Canary, ["id"], _overview),
        Way(Alarm, ["id"], _overview),
        Way(ProcessingPause, ["name"], _overview),
        Way(Worker, ["name"], lambda name: WORKERS_PATH),
        Way(ChoreRecord, ["name"], lambda name: WORKERS_PATH),
        Way(
            AuditEntry,
            ["act", "at"],
            lambda act, at: _search(AUDIT_PATH, f"what:{act} at:{at:%Y-%m-%dT%H:%M}"),
        ),
        Way(SavedSearch, ["search"], lambda search: _search(EMAILS_PATH, search)),
        Way(Operator, ["id"], lambda user_id: f"{PEOPLE_PATH}#user-{user_id}"),
        Way(OperatorAccount, ["user_id"], lambda user_id: f"{PEOPLE_PATH}#user-{user_id}"),
    )
}


async def find_page(database: Database, way: Way, key: str) -> str | None:
    """Where a browser finds the page of a row; None where there is no such row.

    Args:
        key: the row's primary key, as Piccolo Admin writes it.
    """
    column = way.table._meta.primary_key
    try:
        value: Any = column.value_type(key)
        row = await database.fetchrow(
            f"SELECT {', '.join(way.columns)} FROM {way.table._meta.tablename}"  # noqa: S608 - of constants
            f" WHERE {column._meta.name} = $1",
            value,
        )
    except (ValueError, asyncpg.DataError):
        # No row has such a key.
        return None
    return None if row is None else address(way.path(*row.values()))


def page_of_rows() -> str:
    """Where a browser asks for the page of a row: the table's name follows, and `?key=`."""
    return address(ROWS_PATH)


def row_address(table: type[Table], key: object = None) -> str:
    """Where a browser finds a row in Piccolo Admin.

    Args:
        key: its primary key; None: all of the table.
    """
    place = f"{admin_address()}#/{table._meta.tablename}/"
    return place if key is None else f"{place}{quote(str(key), safe='')}/"
