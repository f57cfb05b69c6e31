"""The images that an email shows within its text: Zendesk does not list them with its attachments.

https://developer.zendesk.com/api-reference/ticketing/tickets/ticket-attachments/ (`inline`)
"""

import html
import re

import httpx2

from app.attachments.account import Account
from app.outbound.rules import LONGEST_URL

# Far more than an email shows.
MOST_IMAGES = 200

_SOURCE = re.compile(
    rf"""<img(?=\s)[^<>]*?\ssrc\s*+=\s*+["']?(https?://[^\s"'<>]{{1,{LONGEST_URL}}})""",
    re.IGNORECASE,
)
_FILE = re.compile(r"/attachments/token/[^/]+")


def inline_images(body_html: str, account: Account) -> list[str]:
    """The URLs of the images that are files of the account, each once, in their order.

    Others are left out: they show their host who reads the email, and are no part of it.
    """
    found: dict[str, None] = {}
    for match in _SOURCE.finditer(body_html):
        text = html.unescape(match[1])
        try:
            url = httpx2.URL(text)
        except httpx2.InvalidURL:
            continue
        if url.scheme == "https" and account.owns(url) and _FILE.match(url.path):
            found[text] = None
            if len(found) == MOST_IMAGES:
                break
    return [*found]
