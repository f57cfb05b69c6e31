"""Piccolo's app `mailroom`: its tables and where its migrations are."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from app.models.alarm import Alarm, AlarmNotice
from app.models.api_token import ApiToken
from app.models.audit_entry import AuditEntry
from app.models.bulk_action import BulkAction, BulkActionEmail
from app.models.canary import Canary
from app.models.chore import ChoreRecord
from app.models.delivery import SyncEvent, SyncReceiver
from app.models.email_attachment import AttachmentErasure, EmailAttachment
from app.models.email_event import EmailEvent
from app.models.email_hours import EmailHour
from app.models.erasure import Erasure, Tombstone
from app.models.incoming_email import IncomingEmail
from app.models.login_attempts import LoginAttempts
from app.models.operator_account import OperatorAccount
from app.models.operator_identity import OperatorIdentity
from app.models.processing_pause import ProcessingPause
from app.models.quarantined_webhook import QuarantineDrop, QuarantinedWebhook
from app.models.retention_mark import RetentionMark
from app.models.search import SavedSearch, SearchEntry, SearchMark
from app.models.sign_in_step import SignInStep
from app.models.suspended_ticket import SuspendedTicket
from app.models.throughput import ThroughputMinute
from app.models.webhook_secret_use import WebhookSecretUse
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

APP_CONFIG = AppConfig(
    app_name="mailroom",
    migrations_folder_path=str(Path(__file__).resolve().parent.parent / "piccolo_migrations"),
    table_classes=[
        IncomingEmail,
        EmailAttachment,
        AttachmentErasure,
        EmailEvent,
        QuarantinedWebhook,
        QuarantineDrop,
        ApiToken,
        Worker,
        ChoreRecord,
        Canary,
        RetentionMark,
        WaitingAttachment,
        ZendeskErasure,
        ZendeskCursor,
        ZendeskInvocation,
        ZendeskOddity,
        ZendeskTicketInQuestion,
        ZendeskUnseenTicket,
        LoginAttempts,
        SyncReceiver,
        SyncEvent,
        Alarm,
        AlarmNotice,
        Erasure,
        Tombstone,
        EmailHour,
        SuspendedTicket,
        ZendeskRanges,
        WebhookSecretUse,
        ThroughputMinute,
        ProcessingPause,
        BulkAction,
        BulkActionEmail,
        SearchEntry,
        SearchMark,
        SavedSearch,
        AuditEntry,
        OperatorAccount,
        SignInStep,
        OperatorIdentity,
    ],
)
