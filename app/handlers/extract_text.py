"""The built-in handler: readable text from the body of an email, into `cleaned_body`."""

import asyncio
from typing import Any

import html_text

from app.handlers.seam import PermanentFailure
from app.models.incoming_email import IncomingEmail


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
        return html_text.extract_text(html)
    except (ValueError, RecursionError) as error:
        raise PermanentFailure(f"the HTML body cannot be parsed: {error}") from error
