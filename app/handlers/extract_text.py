"""The built-in handler: what the customer wrote, into `cleaned_body`; what else the email holds,
into `extracted_data`."""

from collections.abc import Mapping
from typing import Any

from app.handlers.seam import Email, PermanentFailure
from app.text.reader import TextReaderError, read_text


async def handle(email: Email) -> dict[str, Any]:
    """Read the plain body, or else the HTML one.

    Returns:
        What was quoted, forwarded and signed, the language, the kind of email and how sure that
        is, where the text came from, and how long it is.

    Raises:
        PermanentFailure: the body takes longer to read than any email does.
    """
    text = email.raw_body_text or ""
    html = email.raw_body_html or ""
    try:
        read = await read_text(
            html=html,
            text=text,
            subject=email.subject or "",
            sender=email.from_email or "",
            headers=_headers(email.raw_payload),
        )
    except TextReaderError as error:
        if error.is_final:
            raise PermanentFailure(str(error)) from error
        raise
    email.cleaned_body = read.cleaned_body
    source = "text" if text.strip() else "html"
    return {
        "text_source": source if read.cleaned_body else None,
        "characters": len(read.cleaned_body),
        "attachments": len(email.attachment_urls) if isinstance(email.attachment_urls, list) else 0,
        **read.data,
    }


def _headers(payload: Any) -> Mapping[str, str]:
    """The header fields of an email whose template passes them on as an object."""
    headers = payload.get("headers") if isinstance(payload, Mapping) else None
    if not isinstance(headers, Mapping):
        return {}
    return {str(name): value for name, value in headers.items() if isinstance(value, str)}
