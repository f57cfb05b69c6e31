"""Mailroom's table as the peers with SQLAlchemy see it."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON, DateTime, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What the models have in common."""


class IncomingEmail(Base):
    """The columns of Mailroom's own table that the peers fill."""

    __tablename__ = "incoming_emails"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    zendesk_ticket_id: Mapped[str]
    zendesk_webhook_id: Mapped[str | None]
    from_email: Mapped[str]
    from_name: Mapped[str | None]
    subject: Mapped[str]
    raw_body_html: Mapped[str | None] = mapped_column(Text)
    raw_body_text: Mapped[str | None] = mapped_column(Text)
    cleaned_body: Mapped[str | None] = mapped_column(Text)
    extracted_data: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    processing_status: Mapped[str] = mapped_column(default="received")
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    attachment_urls: Mapped[Any] = mapped_column(JSON(none_as_null=True))
    raw_payload: Mapped[Any] = mapped_column(JSON(none_as_null=True))
    idempotency_key: Mapped[str | None]
    queued_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
