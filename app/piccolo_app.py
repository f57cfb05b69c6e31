"""Piccolo's app `mailroom`: its tables and where its migrations are."""

from pathlib import Path

from piccolo.conf.apps import AppConfig

from app.models.api_token import ApiToken
from app.models.email_attachment import AttachmentErasure, EmailAttachment
from app.models.incoming_email import IncomingEmail
from app.models.login_attempts import LoginAttempts
from app.models.quarantined_webhook import QuarantineDrop, QuarantinedWebhook
from app.models.worker import Worker
from app.models.zendesk_event import WaitingAttachment, ZendeskErasure

APP_CONFIG = AppConfig(
    app_name="mailroom",
    migrations_folder_path=str(Path(__file__).resolve().parent.parent / "piccolo_migrations"),
    table_classes=[
        IncomingEmail,
        EmailAttachment,
        AttachmentErasure,
        QuarantinedWebhook,
        QuarantineDrop,
        ApiToken,
        Worker,
        WaitingAttachment,
        ZendeskErasure,
        LoginAttempts,
    ],
)
