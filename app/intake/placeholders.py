"""Templates that were sent as they were typed: `{{ticket.id}}` in place of a ticket's number.

Zendesk's "test webhook" sends a template without an email behind it, and a placeholder that is
misspelt stays as it is. A customer may write such a thing in a subject or a body; what makes a
payload an email, the ticket and the sender, is never written by hand.
"""

import re

from app.intake.payload import CheckedPayload, FieldError, InvalidPayloadError

# Liquid's outputs and tags: https://shopify.github.io/liquid/basics/introduction/
_UNRENDERED = re.compile(r"\{\{[^{}]*\}\}|\{%[^{}]*%\}")


def refuse_unrendered(payload: CheckedPayload) -> None:
    """Refuse a payload whose ticket or sender is a placeholder.

    Raises:
        InvalidPayloadError: names each of the fields.
    """
    errors = []
    for name in ("ticket_id", "from_email"):
        found = _UNRENDERED.search(str(getattr(payload.email, name)))
        if found:
            errors.append(
                FieldError(
                    name,
                    f"is the placeholder {found.group()[:60]} and no value: Zendesk did not "
                    "render the template; see that the placeholder is spelt right and that a "
                    "trigger about a ticket sends it (a test of the webhook has no ticket)",
                )
            )
    if errors:
        raise InvalidPayloadError(errors)
