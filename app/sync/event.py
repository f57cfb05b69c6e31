"""What a receiver is told: the JSON of one delivery, described in docs/delivery.md.

Nothing here touches the database or the network.
"""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs

from app.models.delivery import DeliveryKind
from app.models.fit import read_json
from app.settings import Settings
from app.sync.claims import Claimed, Source
from app.sync.signing import id_of_email, id_of_event

BODIES = ("body_html", "body_text", "cleaned_body")
DATA = "extracted_data"
FILES = "attachments"
ERROR = "error"
MAY_GO = (*BODIES, DATA, FILES, ERROR)
"""What may be left out of an event that is too large: the bodies first, in their order."""

# Characters: longer ones are no name that a file system takes, no type, and no sentence.
LONGEST_FILENAME = 255
LONGEST_CONTENT_TYPE = 255
LONGEST_ERROR = 2_000

CLOUDEVENTS_SOURCE = "/mailroom"


@attrs.frozen
class Event:
    """One thing that a receiver is told."""

    id: str
    """The `webhook-id`: the same at each try."""
    type: DeliveryKind
    email_id: UUID
    at: datetime
    """When it happened."""
    data: dict[str, Any] = attrs.field(repr=False)

    def plain(self) -> dict[str, Any]:
        """In the shape that Standard Webhooks recommends."""
        return {
            "type": self.type.value,
            "timestamp": _moment(self.at),
            "id": self.id,
            "data": self.data,
        }

    def cloud_event(self) -> dict[str, Any]:
        """As a CloudEvent. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md"""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": CLOUDEVENTS_SOURCE,
            "type": f"mailroom.{self.type.value}",
            "subject": str(self.email_id),
            "time": _moment(self.at),
            "datacontenttype": "application/json",
            "data": self.data,
        }


class EventMaker:
    """Makes events of what was claimed."""

    def __init__(self, settings: Settings) -> None:
        self._most_bytes = settings.sync_max_bytes
        self._with_bodies = settings.sync_bodies == "inline"
        self._is_cloud_event = settings.sync_format == "cloudevents"
        self._base = (settings.public_url or settings.root_path).rstrip("/")

    @property
    def most_bytes(self) -> int:
        """Of an event, as JSON."""
        return self._most_bytes

    @property
    def most_body_bytes(self) -> int:
        """Of a text that is worth fetching; -1: none is."""
        return self._most_bytes if self._with_bodies else -1

    def make(self, claimed: Claimed) -> Event:
        """The event, with its texts and files as far as they fit."""
        if claimed.source is Source.EVENTS:
            return self._of_event(claimed)
        event = self._of_email(claimed)
        data = event.data
        for name in MAY_GO:
            if self.size(event) <= self._most_bytes:
                break
            if data[name]:
                data[name] = [] if name == FILES else None
                data["left_out"].append(name)
        return event

    def size(self, event: Event) -> int:
        """Bytes of the JSON of an event."""
        return len(self.encode(event).encode())

    def encode(self, event: Event) -> str:
        """The JSON of an event."""
        try:
            return _json(self.shape(event))
        except ValueError:
            # A number beyond all that JSON's readers take.
            event.data["extracted_data"] = None
            event.data["left_out"].append("extracted_data")
            return _json(self.shape(event))

    def content_type(self, *, is_batch: bool) -> str:
        """Of a request. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md"""
        if not self._is_cloud_event:
            return "application/json; charset=utf-8"
        kind = "cloudevents-batch" if is_batch else "cloudevents"
        return f"application/{kind}+json; charset=utf-8"

    def shape(self, event: Event) -> dict[str, Any]:
        """The event in the shape of the settings."""
        return event.cloud_event() if self._is_cloud_event else event.plain()

    def _of_event(self, claimed: Claimed) -> Event:
        row = claimed.columns
        return Event(
            id=id_of_event(claimed.id),
            type=DeliveryKind(row["kind"]),
            email_id=row["email"],
            at=row["created_at"],
            data={"id": str(row["email"]), "version": claimed.version},
        )

    def _of_email(self, claimed: Claimed) -> Event:
        row = claimed.columns
        link = f"{self._base}/api/v1/jobs/{claimed.id}"
        is_completed = row["processing_status"] == "completed"
        at = row["completed_at"] or row["received_at"]
        data = {
            "id": str(claimed.id),
            "version": claimed.version,
            "key": row["idempotency_key"],
            "origin": row["origin"],
            "status": row["processing_status"],
            ERROR: _cut(row["processing_error"], LONGEST_ERROR),
            "ticket_id": row["zendesk_ticket_id"],
            "ticket_number": row["ticket_number"],
            "account_id": row["zendesk_account_id"],
            "comment_id": row["zendesk_comment_id"],
            "from_email": row["from_email"],
            "from_name": row["from_name"],
            "subject": row["subject"],
            "received_at": _moment(row["received_at"]),
            "completed_at": _moment(at),
            "erased": row["is_erased"],
            "bodies_removed_at": row["bodies_removed_at"] and _moment(row["bodies_removed_at"]),
            "cleaned_body": row["cleaned_body"],
            "body_text": row["body_text"],
            "body_html": row["body_html"],
            "extracted_data": read_json(row["extracted_data"]),
            "left_out": [name for name in (*BODIES, DATA) if row[f"is_long_{name}"]],
            FILES: [_file(file, link) for file in read_json(row["files"]) or ()],
            "url": link,
        }
        return Event(
            id=id_of_email(claimed.id, claimed.version),
            type=DeliveryKind.COMPLETED if is_completed else DeliveryKind.FAILED,
            email_id=claimed.id,
            at=at,
            data=data,
        )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _file(file: dict[str, Any], link: str) -> dict[str, Any]:
    # The rest has no bytes here that could be fetched.
    is_kept = file["state"] == "kept"
    return {
        **file,
        "filename": _cut(file["filename"], LONGEST_FILENAME),
        "content_type": _cut(file["content_type"], LONGEST_CONTENT_TYPE),
        "url": f"{link}/attachments/{file['position']}" if is_kept else None,
    }


def _cut(text: str | None, most: int) -> str | None:
    return text and text[:most]


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
