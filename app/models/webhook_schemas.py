"""The DTOs of the wire: what a Zendesk trigger posts, and what it is answered.

They describe the flat payload that an admin types into a trigger. Reading and checking a payload
is the Intake's business; nothing here decides anything.
"""

from typing import Annotated, Any
from uuid import UUID

import attrs
from litestar.openapi.spec import Example
from litestar.params import Parameter

from app.models.webhook_status import WebhookStatus


def _about(description: str, *examples: object) -> Any:
    return Parameter(
        description=description, examples=[Example(value=example) for example in examples]
    )


@attrs.frozen(kw_only=True)
class Attachment:
    """A file of the email, which stays at Zendesk until somebody fetches it.

    Further keys that a template sends are kept beside these.
    """

    url: Annotated[
        str,
        _about(
            "Where the file is. Zendesk asks for credentials there.",
            "https://example.zendesk.com/attachments/token/3x4mpl3/?name=rechnung.pdf",
        ),
    ]
    filename: Annotated[str | None, _about("Its name", "rechnung.pdf")] = None
    content_type: Annotated[str | None, _about("Its media type", "application/pdf")] = None
    size: Annotated[int | None, _about("Its size in bytes", 12345)] = None


@attrs.frozen(kw_only=True)
class ZendeskWebhookEmail:
    """One inbound email, as the trigger's template spells it. Unknown fields are kept."""

    ticket_id: Annotated[str | int, _about("`{{ticket.id}}`, as text or number", "35436")]
    from_email: Annotated[
        str, _about("`{{ticket.requester.email}}`", "erika.mustermann@example.com")
    ]
    from_name: Annotated[str | None, _about("`{{ticket.requester.name}}`", "Erika Mustermann")] = (
        None
    )
    subject: Annotated[str | None, _about("`{{ticket.title}}`", "Wo bleibt mein Päckchen?")] = None
    body_html: Annotated[
        str | None,
        _about("`{{ticket.latest_comment_html}}`", "<p>Guten Tag,<br>wo ist mein Päckchen?</p>"),
    ] = None
    body_text: Annotated[
        str | None, _about("`{{ticket.latest_comment}}`", "Guten Tag, wo ist mein Päckchen?")
    ] = None
    received_at: Annotated[
        str | float | None,
        _about(
            "When the email came, in any format: ISO 8601, RFC 5322, Unix time. UTC where it "
            "names no zone. Left out, unreadable, in a zone that is not certain, before 2000 or in "
            "the future, it is the time at which Mailroom received it.",
            "2026-11-23T14:05:09Z",
        ),
    ] = None
    webhook_id: Annotated[
        str | int | None,
        _about(
            "An id of this one delivery, by which a redelivery is recognised. Without it the "
            "header X-Zendesk-Webhook-Invocation-Id serves.",
            "01HF5Z3V9K8Q2W7X6N4M1B0C5D",
        ),
    ] = None
    attachments: Annotated[list[Attachment] | None, _about("The files of the email")] = None
    text_encoding: Annotated[
        str | None,
        _about(
            "`{{ 'url %' | url_encode }}`: the sender, the subject, the bodies and the file names "
            "went through the same filter, and are decoded.",
            "url+%25",
        ),
    ] = None


@attrs.frozen(kw_only=True)
class WebhookResponse:
    """The answer to a webhook: the email is stored durably, now or since an earlier delivery."""

    status: Annotated[
        WebhookStatus,
        _about(
            "`duplicate`: it was stored before; nothing was added. `acknowledged`: an event that "
            "is no email, or an email that Zendesk has erased",
            "accepted",
        ),
    ]
    message: Annotated[
        str, _about("The same for people", "The email is stored and will be processed.")
    ]
    email_id: Annotated[
        UUID | None,
        _about(
            "The email's id in Mailroom; null where it is about none",
            "0193587e-8b2f-7c3a-9d4e-5f6a7b8c9d0e",
        ),
    ]
