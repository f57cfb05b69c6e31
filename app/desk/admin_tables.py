"""What Piccolo Admin shows of each table, and how.

Rows are changed by Mailroom alone and only looked at here, but for users and their roles.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from piccolo.columns.base import Column
from piccolo.table import Table, create_table_class
from piccolo_admin.endpoints import TableConfig
from piccolo_api.crud.endpoints import OrderBy, ParamException, PiccoloCRUD
from piccolo_api.crud.hooks import Hook, HookType
from piccolo_api.crud.validators import Validators
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.database.engine import DB
from app.desk.admin_lists import is_heavy
from app.desk.admin_roles import table_names
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


class Group(StrEnum):
    """What tables are listed under."""

    EMAILS = "Emails"
    KEPT_OUT = "Kept out"
    DELIVERY = "Delivery"
    REMOVAL = "Removal"
    ZENDESK = "Zendesk"
    RUNNING = "Running"
    PEOPLE = "People"


def _only_look(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    if request.method not in ("GET", "HEAD"):
        detail = "These rows cannot be changed by hand: use the desk, the API or a command."
        raise HTTPException(status_code=403, detail=detail)


def _not_by_put(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    if request.method == "PUT":
        # Piccolo's PUT would store a password as it came; PATCH, which the page uses, hashes it.
        raise HTTPException(status_code=405, detail="Use PATCH.")


def _check_parameters(piccolo_crud: PiccoloCRUD, request: Request) -> None:
    """Piccolo meets an unknown column or a parameter given twice with an exception."""
    try:
        parameters = piccolo_crud._split_params(piccolo_crud._parse_params(request.query_params))
        piccolo_crud.pydantic_model_filters(**parameters.fields)
    except (ParamException, TypeError, ValueError) as error:
        raise HTTPException(
            status_code=400,
            detail="A parameter names no column, has an impossible value or is given twice.",
        ) from error


EMAILS = TableConfig(
    IncomingEmail,
    menu_group=Group.EMAILS,
    visible_columns=[
        IncomingEmail.id,
        IncomingEmail.received_at,
        IncomingEmail.processing_status,
        IncomingEmail.from_email,
        IncomingEmail.subject,
        IncomingEmail.zendesk_ticket_id,
        IncomingEmail.retry_count,
        IncomingEmail.processing_error,
    ],
    visible_filters=[
        IncomingEmail.processing_status,
        IncomingEmail.from_email,
        IncomingEmail.subject,
        IncomingEmail.zendesk_ticket_id,
        IncomingEmail.received_at,
        # Piccolo Admin compares a column once. Between two times: from one column, until the other.
        IncomingEmail.created_at,
        IncomingEmail.sync_status,
        IncomingEmail.processing_error,
    ],
    order_by=[OrderBy(IncomingEmail.received_at, ascending=False)],
    validators=Validators(every=[_only_look, _check_parameters]),
)

FILES = TableConfig(
    EmailAttachment,
    menu_group=Group.EMAILS,
    visible_columns=[
        EmailAttachment.id,
        EmailAttachment.email,
        EmailAttachment.position,
        EmailAttachment.filename,
        EmailAttachment.state,
        EmailAttachment.reason,
        EmailAttachment.size,
        EmailAttachment.content_type,
        EmailAttachment.tries,
        EmailAttachment.ended_at,
    ],
    visible_filters=[
        EmailAttachment.email,
        EmailAttachment.state,
        EmailAttachment.reason,
        EmailAttachment.filename,
        EmailAttachment.sha256,
        EmailAttachment.ended_at,
    ],
    # Those of the newest email first, by unique_position: ids of emails grow with time.
    order_by=[
        OrderBy(EmailAttachment.email, ascending=False),
        OrderBy(EmailAttachment.position, ascending=False),
    ],
    validators=Validators(every=[_only_look, _check_parameters]),
)


async def _check_user(row_id: object, values: dict[Any, Any]) -> dict[Any, Any]:
    """Piccolo would hash the new password in the event loop, and let the id be changed."""
    if str(values.get("id", row_id)) != str(row_id):
        raise HTTPException(status_code=400, detail="The id of a user stays as it is.")
    if password := values.pop("password", None):
        try:
            values["password"] = await Operator.prepare(password)
        except ValueError as error:
            raise HTTPException(status_code=400, detail=str(error)) from error
    return values


USERS = TableConfig(
    Operator,
    menu_group=Group.PEOPLE,
    exclude_visible_columns=[Operator.password],
    exclude_visible_filters=[Operator.password],
    validators=Validators(every=[_not_by_put, _check_parameters]),
    hooks=[Hook(HookType.pre_patch, _check_user)],
)


ACCOUNTS = TableConfig(
    OperatorAccount,
    menu_group=Group.PEOPLE,
    validators=Validators(every=[_not_by_put, _check_parameters]),
)


def _rows(
    table: type[Table],
    group: Group,
    *,
    newest: Column | None = None,
    hidden: Sequence[Column] = (),
    texts: Sequence[Column] = (),
) -> TableConfig:
    """Rows to look at.

    Args:
        newest: by which column the newest are first; none: by their key.
        hidden: columns that Piccolo Admin does not know, so that it neither shows them nor finds
            or sorts rows by them.
        texts: columns of any length that its list has all the same: they are short.
    """
    without = {column._meta.name for column in hidden}
    if hidden:
        table = create_table_class(
            table.__name__,
            class_kwargs={
                "tablename": table._meta.tablename,
                "db": DB,
                "help_text": table._meta.help_text,
            },
            class_members={
                column._meta.name: column
                for column in table._meta.columns
                if column._meta.name not in without
            },
        )
    # Of columns `==` makes SQL, so that `in` finds any.
    short = {column._meta.name for column in texts}
    columns = table._meta.columns
    return TableConfig(
        table,
        menu_group=group,
        visible_columns=[c for c in columns if not is_heavy(c) or c._meta.name in short],
        visible_filters=[c for c in columns if not is_heavy(c)],
        order_by=[OrderBy(newest, ascending=False)] if newest is not None else None,
        validators=Validators(every=[_only_look, _check_parameters]),
    )


ROWS = [
    EMAILS,
    FILES,
    _rows(EmailEvent, Group.EMAILS, newest=EmailEvent.id, texts=[EmailEvent.text]),
    # Words of bodies, of which viewers may see none.
    _rows(SearchEntry, Group.EMAILS, newest=SearchEntry.email, hidden=[SearchEntry.words]),
    _rows(SearchMark, Group.EMAILS),
    _rows(BulkAction, Group.EMAILS, newest=BulkAction.asked_at, texts=[BulkAction.filter]),
    _rows(BulkActionEmail, Group.EMAILS, newest=BulkActionEmail.id),
    # Bytes that may be no text, which Piccolo cannot show, and of which viewers may see none.
    _rows(
        QuarantinedWebhook,
        Group.KEPT_OUT,
        newest=QuarantinedWebhook.received_at,
        hidden=[QuarantinedWebhook.body],
        texts=[QuarantinedWebhook.detail],
    ),
    _rows(
        SuspendedTicket,
        Group.KEPT_OUT,
        newest=SuspendedTicket.suspended_at,
        texts=[SuspendedTicket.sender, SuspendedTicket.subject],
    ),
    _rows(SyncEvent, Group.DELIVERY, newest=SyncEvent.created_at, texts=[SyncEvent.sync_error]),
    _rows(SyncReceiver, Group.DELIVERY, texts=[SyncReceiver.reason, SyncReceiver.pause_reason]),
    # A guess of whom an erasure was about could be tried on it.
    _rows(Erasure, Group.REMOVAL, newest=Erasure.asked_at, hidden=[Erasure.criterion_hash]),
    _rows(Tombstone, Group.REMOVAL, newest=Tombstone.created_at),
    _rows(AttachmentErasure, Group.REMOVAL),
    _rows(RetentionMark, Group.REMOVAL),
    # A file's link may hold a token.
    _rows(
        WaitingAttachment,
        Group.ZENDESK,
        newest=WaitingAttachment.created_at,
        hidden=[WaitingAttachment.attachment],
    ),
    _rows(ZendeskErasure, Group.ZENDESK, newest=ZendeskErasure.created_at),
    _rows(ZendeskCursor, Group.ZENDESK, texts=[ZendeskCursor.trouble]),
    _rows(ZendeskInvocation, Group.ZENDESK, newest=ZendeskInvocation.completed_at),
    _rows(ZendeskOddity, Group.ZENDESK, newest=ZendeskOddity.id),
    _rows(ZendeskTicketInQuestion, Group.ZENDESK, newest=ZendeskTicketInQuestion.created_at),
    _rows(ZendeskUnseenTicket, Group.ZENDESK, newest=ZendeskUnseenTicket.noted_at),
    _rows(ZendeskRanges, Group.ZENDESK),
    _rows(Worker, Group.RUNNING),
    _rows(ChoreRecord, Group.RUNNING, texts=[ChoreRecord.last_error, ChoreRecord.last_note]),
    _rows(Canary, Group.RUNNING, texts=[Canary.trouble]),
    _rows(Alarm, Group.RUNNING, newest=Alarm.since, texts=[Alarm.text, Alarm.mend]),
    _rows(AlarmNotice, Group.RUNNING, texts=[AlarmNotice.error]),
    _rows(ProcessingPause, Group.RUNNING),
    _rows(AuditEntry, Group.PEOPLE, newest=AuditEntry.at),
    _rows(ApiToken, Group.PEOPLE, newest=ApiToken.created_at, hidden=[ApiToken.token_hash]),
    _rows(LoginAttempts, Group.PEOPLE),
    _rows(SavedSearch, Group.PEOPLE, texts=[SavedSearch.search]),
]

CONFIGS = {config.table_class._meta.tablename: config for config in (*ROWS, USERS, ACCOUNTS)}


def tables_of(role: Role, *, sees_bodies: bool) -> list[TableConfig]:
    """The tables that this role has."""
    return [CONFIGS[name] for name in table_names(role, sees_bodies=sees_bodies)]
