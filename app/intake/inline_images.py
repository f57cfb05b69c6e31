"""The images that an email shows within its text: Zendesk does not list them with its attachments.

https://developer.zendesk.com/api-reference/ticketing/tickets/ticket-attachments/ (`inline`)
"""

import html
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.attachments.hosts import is_own
from app.intake.attachments import LONGEST_URL
from app.models.fit import fit_text

# Far more than an email shows.
MOST_IMAGES = 200

_FILES = "/attachments/token/"
_SOURCE = re.compile(
    rf"""<img(?=\s)[^<>]*?\ssrc\s*+=\s*+["']?(https://[^\s"'<>]{{1,{LONGEST_URL - 8}}})""",
    re.IGNORECASE,
)


def inline_images(
    body_html: str | None, named: Sequence[dict[str, Any]], hosts: frozenset[str]
) -> list[dict[str, Any]]:
    """Entries for the images that are files of the account, in their order, each once.

    Others are left out: they show their host who reads the email, and are no part of it.

    Args:
        named: the entries that the email has already.
        hosts: the account's, as `app.attachments.hosts.own_hosts` tells.
    """
    if body_html is None or _FILES not in body_html:
        return []
    known = {entry.get("url") for entry in named}
    found: dict[str, dict[str, Any]] = {}
    for match in _SOURCE.finditer(body_html):
        url = html.unescape(match[1])
        if url in known or url in found or (name := _name_of(url, hosts)) is None:
            continue
        found[url] = {
            "url": url,
            "filename": name or None,
            "content_type": None,
            "size": None,
            "inline": True,
        }
        if len(found) == MOST_IMAGES:
            break
    return [*found.values()]


def _name_of(url: str, hosts: frozenset[str]) -> str | None:
    """The file name in the URL of a file of the account, or an empty one; None for other URLs."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        names = parse_qs(parts.query).get("name", [""])
    except ValueError:
        return None
    # `%00` in it is a character that the database refuses.
    return fit_text(names[0]) if is_own(host, hosts) and parts.path.startswith(_FILES) else None
