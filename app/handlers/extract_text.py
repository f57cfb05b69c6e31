"""The built-in handler: readable text from the body of an email, into `cleaned_body`."""

import asyncio
import re
from html.parser import HTMLParser
from typing import Any

import html_text
import lxml.html
from lxml import etree

from app.handlers.seam import PermanentFailure
from app.models.incoming_email import IncomingEmail

# What XML has no way to write, and lxml therefore does not take.
CONTROL_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

UNREAD_TAGS = ("script", "style", "title")


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
    # Reply chains nest deeper than the parser goes by default; beyond that it drops the rest.
    parser = lxml.html.HTMLParser(huge_tree=True, encoding="utf-8")
    try:
        tree = lxml.html.document_fromstring(html.encode(), parser=parser)
        if any("depth" in entry.message for entry in parser.error_log):
            return _without_tags(html)
        _strip_control_characters(tree)
        return str(html_text.extract_text(tree))
    except RecursionError:
        return _without_tags(html)
    except (etree.ParserError, etree.XMLSyntaxError):
        # Nothing but comments, or no text at all.
        return ""
    except ValueError as error:
        raise PermanentFailure(f"the HTML body cannot be parsed: {error}") from error


def _strip_control_characters(tree: Any) -> None:
    """They may also have been written as references such as `&#1;`."""
    for element in tree.iter():
        for text in ("text", "tail"):
            value = getattr(element, text)
            if value and CONTROL_CHARACTERS.search(value):
                setattr(element, text, CONTROL_CHARACTERS.sub("", value))


def _without_tags(html: str) -> str:
    """The bare text of HTML of any depth, without its layout."""
    stripper = _TagStripper()
    stripper.feed(html)
    stripper.close()
    return "\n".join(text.strip() for text in stripper.texts if text.strip())


class _TagStripper(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._unread += tag in UNREAD_TAGS

    def handle_endtag(self, tag: str) -> None:
        self._unread -= tag in UNREAD_TAGS and self._unread > 0

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.texts.append(data)
