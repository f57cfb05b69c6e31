"""The HTML of an email as its sender meant it, without what runs, loads or leads away.

It is cleaned when it is looked at: the table keeps what came. The page shows it in a frame without
scripts, under a policy of its own that forbids what the cleaning may have missed.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import unquote

import attrs
import structlog

from app.desk.email_html_process import IMAGE, LONGEST_CLEANED
from app.i18n.texts import gettext as _
from app.text.asked_process import AskedProcess, ProcessEndedError

log = structlog.get_logger(__name__)

# Characters; the rest is not shown.
LONGEST_HTML = 2_000_000

POLICY = (
    "sandbox allow-same-origin; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

# The cleaning escapes what stands in attributes, so that a tag ends at the first of these.
_IMAGE = re.compile(r"<img\b[^>]*>")
_SOURCE = re.compile(rf'\ssrc="{IMAGE}(\d+)"')
_ALT = re.compile(r'\salt="([^"]*)"')
_MARK = "border: 1px dashed #888; color: #555; padding: 0 4px; font: 13px sans-serif"
LONGEST_SHOWN_ADDRESS = 300


@attrs.frozen
class Images:
    """Where images are that were kept."""

    by_address: Mapping[str, str]
    """By the address that the email has for them."""
    by_name: Mapping[str, str]
    """By the name of the file, in small letters: a `cid:` begins with it in most emails."""

    def find(self, source: str) -> str | None:
        """The address at which we have it; None where we do not."""
        scheme, _colon, rest = source.partition(":")
        if scheme.lower() != "cid":
            return self.by_address.get(source)
        return self.by_name.get(unquote(rest).partition("@")[0].lower())


CLEANER = AskedProcess("email-html", "app.desk.email_html_process")


async def safe_html(html: str, images: Images, *, marked: bool = False) -> str:
    """A page of its own, with nothing of strangers that runs, loads or sends.

    Args:
        images: all others are left out.
        marked: show the places of those, with their addresses as text.
    """
    try:
        cleaned = await CLEANER.ask({"html": html[:LONGEST_HTML]})
    except ProcessEndedError as error:
        log.warning("email_html_not_cleaned", status=error.status)
        cleaned = None
    body = None if cleaned is None else _draw(cleaned["html"], cleaned["sources"], images, marked)
    if body is None or len(body) > LONGEST_CLEANED:
        told = _("This HTML is too complicated to be shown: read the text, or download the email.")
        body = f"<p>{escape(told)}</p>"
    return (
        '<!doctype html><html lang=""><head><meta charset="utf-8"><title>Email</title></head>'
        f"<body>{body}</body></html>"
    )


def _draw(cleaned: str, sources: Sequence[str], images: Images, marked: bool) -> str:
    def draw(found: re.Match[str]) -> str:
        number = _SOURCE.search(found[0])
        if number is None:
            return found[0]
        source = sources[int(number[1])]
        if (ours := images.find(source)) is not None:
            return _SOURCE.sub(lambda _found: f' src="{escape(ours)}"', found[0], count=1)
        alt = _ALT.search(found[0])
        told = alt[1] if alt else ""
        if not marked:
            return told
        what = f"{told} {escape(source[:LONGEST_SHOWN_ADDRESS])}"
        told = _("image left out: %(what)s", what=what)
        return f'<span style="{_MARK}">{told}</span>'

    return _IMAGE.sub(draw, cleaned)
