"""The HTML of an email as its sender meant it, without what runs, loads or leads away.

It is cleaned when it is looked at: the table keeps what came. The page shows it in a frame without
scripts, under a policy of its own that forbids what the cleaning may have missed.
"""

import re
from collections.abc import Mapping
from html import escape
from urllib.parse import unquote

import attrs
import nh3

from app.i18n.texts import gettext as _

# Characters; a browser takes seconds for more.
LONGEST_HTML = 2_000_000

POLICY = (
    "sandbox allow-same-origin; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

# None of them takes an address, so no style loads anything.
_STYLES = {
    "background-color", "border", "border-bottom", "border-collapse", "border-color", "border-left",
    "border-radius", "border-right", "border-style", "border-top", "border-width", "color",
    "direction", "display", "font-family", "font-size", "font-style", "font-weight", "height",
    "letter-spacing", "line-height", "margin", "margin-bottom", "margin-left", "margin-right",
    "margin-top", "max-width", "min-width", "padding", "padding-bottom", "padding-left",
    "padding-right", "padding-top", "text-align", "text-decoration", "text-indent",
    "text-transform", "vertical-align", "white-space", "width", "word-break", "word-wrap",
}  # fmt: skip
_TAGS = nh3.ALLOWED_TAGS | {"font"}
# Browsers leave these out of an address.
_CONTROLS = re.compile(r"[\x00-\x20]")
FOR_IMAGES_ALONE = ("cid:", "data:")
_ATTRIBUTES = {
    **nh3.ALLOWED_ATTRIBUTES,
    "*": {"style", "dir", "lang", "align", "valign", "bgcolor", "color", "width", "height"},
    "font": {"face", "size"},
    "table": {"border", "cellpadding", "cellspacing", "summary"},
}


# What an image that is left out is called until its place is drawn. No address of ours begins so.
_LEFT_OUT = "left-out:"
# The cleaning escapes what stands in attributes, so that a tag ends at the first of these.
_IMAGE = re.compile(r"<img\b[^>]*>")
_NUMBER = re.compile(rf'\ssrc="{_LEFT_OUT}(\d+)"')
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


def safe_html(html: str, images: Images, *, marked: bool = False) -> str:
    """A page of its own, with nothing of strangers that runs, loads or sends.

    Args:
        images: all others are left out.
        marked: show the places of those, with their addresses as text.
    """
    left_out: list[str] = []

    def ours_only(tag: str, attribute: str, value: str) -> str | None:
        if (tag, attribute) == ("img", "src"):
            if (ours := images.find(value)) is not None:
                return ours
            left_out.append(value)
            return f"{_LEFT_OUT}{len(left_out) - 1}"
        return None if _CONTROLS.sub("", value).lower().startswith(FOR_IMAGES_ALONE) else value

    def mark(found: re.Match[str]) -> str:
        number = _NUMBER.search(found[0])
        if number is None:
            return found[0]
        alt = _ALT.search(found[0])
        told = alt[1] if alt else ""
        if marked:
            address = escape(left_out[int(number[1])][:LONGEST_SHOWN_ADDRESS])
            what = f"{told} {address}"
            told = _("image left out: %(what)s", what=what)
        return f'<span style="{_MARK}">{told}</span>' if marked else told

    cleaned = nh3.clean(
        html[:LONGEST_HTML],
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=ours_only,
        filter_style_properties=_STYLES,
        link_rel="noopener noreferrer nofollow",
        url_schemes=nh3.ALLOWED_URL_SCHEMES | {"cid", "data"},
    )
    return (
        '<!doctype html><html lang=""><head><meta charset="utf-8"><title>Email</title></head>'
        f"<body>{_IMAGE.sub(mark, cleaned)}</body></html>"
    )
