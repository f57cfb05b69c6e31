"""Which tables Piccolo Admin has, and for whom; how it shows them is in `app.desk.admin_tables`.

A test names the tables that are left out, and why.
"""

from piccolo.table import Table

from app.desk.operators import Operator
from app.models.alarm import Alarm, AlarmNotice
from app.models.api_token import ApiToken
from app.models.audit_entry import AuditEntry
from app.models.bulk_action import BulkAction, BulkActionEmail
from app.models.canary import Canary
from app.models.chore import ChoreRecord
from app.models.delivery import SyncEvent, SyncReceiver
from app.models.email_attachment import AttachmentErasure, EmailAttachment
from app.models.email_event import EmailEvent
from app.models.erasure import Erasure, Tombstone
from app.models.incoming_email import IncomingEmail
from app.models.login_attempts import LoginAttempts
from app.models.operator_account import OperatorAccount, Role
from app.models.processing_pause import ProcessingPause
from app.models.quarantined_webhook import QuarantinedWebhook
from app.models.retention_mark import RetentionMark
from app.models.search import SavedSearch, SearchEntry, SearchMark
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

LOOKED_AT: tuple[type[Table], ...] = (
    IncomingEmail,
    EmailAttachment,
    EmailEvent,
    SearchEntry,
    SearchMark,
    BulkAction,
    BulkActionEmail,
    QuarantinedWebhook,
    SuspendedTicket,
    SyncEvent,
    SyncReceiver,
    Erasure,
    Tombstone,
    AttachmentErasure,
    RetentionMark,
    WaitingAttachment,
    ZendeskErasure,
    ZendeskCursor,
    ZendeskInvocation,
    ZendeskOddity,
    ZendeskTicketInQuestion,
    ZendeskUnseenTicket,
    ZendeskRanges,
    Worker,
    ChoreRecord,
    Canary,
    Alarm,
    AlarmNotice,
    ProcessingPause,
)

# Who did what, who may do what, and searches that are somebody's own.
LOOKED_AT_BY_ADMINS: tuple[type[Table], ...] = (AuditEntry, ApiToken, LoginAttempts, SavedSearch)
CHANGED_BY_ADMINS: tuple[type[Table], ...] = (Operator, OperatorAccount)

# A row has all its columns, so whoever may not read what emails say has none of these. The search
# of a bulk action may be for what a handler returned.
WITH_BODIES = (IncomingEmail, ZendeskOddity, BulkAction)

ONLY_LOOK = [table._meta.tablename for table in (*LOOKED_AT, *LOOKED_AT_BY_ADMINS)]


def table_names(role: Role, *, sees_bodies: bool) -> list[str]:
    """The names of the tables that this role has."""
    tables = LOOKED_AT
    if role is Role.ADMIN:
        tables = (*LOOKED_AT, *LOOKED_AT_BY_ADMINS, *CHANGED_BY_ADMINS)
    elif not sees_bodies:
        tables = tuple(table for table in LOOKED_AT if table not in WITH_BODIES)
    return [table._meta.tablename for table in tables]
