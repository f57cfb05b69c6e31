"""The built-in handler: readable text from the body of an email, into `cleaned_body`."""

import asyncio
import re
from typing import Any

import html_text

from app.handlers.seam import PermanentFailure
from app.models.incoming_email import IncomingEmail

# What XML has no way to write, and lxml therefore does not take.
CONTROL_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


async def handle(email: IncomingEmail) -> dict[str, Any]:
    """Extract the text of the plain body, or else of the HTML one.

    Returns:
        Where the text came from and how long it is.

    Raises:
        PermanentFailure: the HTML is beyond the parser.
    """
    source = "text"
    text = email.raw_body_text or ""
    if not text.strip() and email.raw_body_html:
        source = "html"
        # Zendesk renders its placeholders as plain text, whatever the field is called.
        text = email.raw_body_html
    if source == "html" and "<" in text:
        # Parsing a large body takes long enough to hold up every other email of this process.
        text = await asyncio.to_thread(_extract, text)
    email.cleaned_body = text.strip()
    return {
        "text_source": source if email.cleaned_body else None,
        "characters": len(email.cleaned_body),
        "attachments": len(email.attachment_urls or []),
    }


def _extract(html: str) -> str:
    try:
        try:
            return html_text.extract_text(html)
        except ValueError:
            return html_text.extract_text(_without_control_characters(html))
    except (ValueError, RecursionError) as error:
        raise PermanentFailure(f"the HTML body cannot be parsed: {error}") from error


def _without_control_characters(html: str) -> Any:
    """The parsed HTML, in which they may also have been written as references such as `&#1;`."""
    tree = html_text.parse_html(html)
    for element in tree.iter():
        for text in ("text", "tail"):
            value = getattr(element, text)
            if value and CONTROL_CHARACTERS.search(value):
                setattr(element, text, CONTROL_CHARACTERS.sub("", value))
    return tree
