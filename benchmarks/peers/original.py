"""The original design of this system: synchronous SQLAlchemy, two commits, Dramatiq on Redis.

The webhook inserts the row and commits, sends a message with its id, marks it as queued and commits
again; the actor loads the row, marks it as processing, and in the end as completed.
"""

import os
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.handlers import work_in_thread
from benchmarks.peers.sqlalchemy_table import IncomingEmail

broker = RedisBroker(url=os.environ["BENCHMARK_BROKER"], namespace=os.environ["BENCHMARK_QUEUE"])
dramatiq.set_broker(broker)
engine = create_engine(
    make_url(os.environ["BENCHMARK_DATABASE"]).set(drivername="postgresql+psycopg")
)
make_session = sessionmaker(engine)


def now() -> datetime:
    """The moment, with its zone."""
    return datetime.now(UTC)


def accept(session: Session, payload: dict[str, Any]) -> UUID:
    """What the webhook did in its request."""
    email = IncomingEmail(
        zendesk_ticket_id=payload["ticket_id"],
        zendesk_webhook_id=payload["webhook_id"],
        from_email=payload["from_email"],
        from_name=payload["from_name"],
        subject=payload["subject"],
        raw_body_text=payload["body_text"],
        received_at=now(),
    )
    session.add(email)
    session.commit()
    email_id = email.id
    process_email.send(str(email_id))
    email.processing_status = "queued"
    email.queued_at = now()
    session.commit()
    return email_id


@dramatiq.actor(queue_name=os.environ["BENCHMARK_QUEUE"])
def process_email(email_id: str) -> None:
    """Process one email."""
    with make_session() as session:
        email = session.get_one(IncomingEmail, UUID(email_id))
        email.processing_status = "processing"
        email.started_at = now()
        session.commit()
        work_in_thread(int(email.zendesk_ticket_id))
        email.processing_status = "completed"
        email.completed_at = now()
        email.extracted_data = {}
        session.commit()
