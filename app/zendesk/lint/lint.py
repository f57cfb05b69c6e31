"""The lint: of a template as an admin types it, or of a payload as it came."""

import re
from collections.abc import Mapping

from app.intake.charset import decode_with_gaps
from app.intake.field_orders import FieldOrders
from app.zendesk.lint.findings import Report
from app.zendesk.lint.payload import lint_payload
from app.zendesk.lint.template import lint_template

_LIQUID = re.compile(
    r"\{\{|\{%|[{<\[%]\s*(?:ticket|current_user)\.[a-z_]+(?:\.[a-z_.]+)?\s*[}>\]%]"
)
_TICKET = re.compile(r'"ticket_id"\s*:\s*(?:"\s*)?(?P<ticket>[^\s",}]*)')
_SENDER = re.compile(r'"from_email"\s*:\s*"(?P<sender>[^"]*)')
_EVENT = '"zen:event-type:'


def lint(
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    orders: FieldOrders | None = None,
    is_trusted: bool = True,
) -> Report:
    """Look at a template or a payload, whichever it is. Never raises, whatever the bytes.

    Args:
        headers: those a payload came with, in lower case, as far as they are known.
        orders: what is known of the fields of the templates.
        is_trusted: a stranger's template is not rendered: it could ask for endless work.
    """
    text, _ = decode_with_gaps(body, (headers or {}).get("content-type"))
    if is_template(text):
        return lint_template(text, is_trusted=is_trusted)
    return lint_payload(body, headers=headers, orders=orders)


def is_template(text: str) -> bool:
    """Whether placeholders stand where a ticket's number and its sender would."""
    if not _LIQUID.search(text) or _EVENT in text:
        return False
    ticket, sender = _TICKET.search(text), _SENDER.search(text)
    is_rendered = (
        ticket is not None
        and ticket["ticket"].isdigit()
        and sender is not None
        and not _LIQUID.search(sender["sender"])
    )
    return not is_rendered
