"""What a file is, by its first bytes. What it claims to be decides only where they do not tell."""

import re

import filetype

# Bytes that are looked at.
HEAD_BYTES = 8 * 1024

UNKNOWN = "application/octet-stream"

# What browsers take for HTML:
# https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type
_HTML = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*+<(?:!--|(?:!doctype\s++html|html|head|script|iframe|h1|div|font|table|"
    rb"a|style|title|b|body|br|p)[\s>])",
    re.IGNORECASE,
)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
# Formats that are text, and known by more than a word that a text could begin with.
_FORMATS_OF_TEXT = frozenset({"application/pdf", "application/rtf", "application/postscript"})
_TYPES_OF_TEXT = re.compile(
    r"text/(?!html).*|message/rfc822|image/svg\+xml|application/(.*\+)?(json|xml|x-yaml|sql)"
)
# Formats that are a ZIP file with certain names in it; those may stand far from its beginning.
_TYPES_OF_ZIP = re.compile(
    r"application/(vnd\.(openxmlformats-officedocument|oasis\.opendocument|ms-)\S*|epub\+zip|"
    r"java-archive|x-zip-compressed)"
)


def find_content_type(head: bytes, *claims: str | None) -> str:
    """The media type of a file that begins with `head`.

    `claims` are what others said of it, the most trusted first, such as the header of the answer.
    """
    types = [known for claim in claims if (known := _media_type(claim)) is not None]
    if not head:
        return types[0] if types else UNKNOWN
    if is_html(head):
        return "text/html"
    found = filetype.guess_mime(head)
    if _is_text(head) and found not in _FORMATS_OF_TEXT:
        return next((t for t in types if _TYPES_OF_TEXT.fullmatch(t)), "text/plain")
    if found == "application/zip":
        return next((t for t in types if _TYPES_OF_ZIP.fullmatch(t)), "application/zip")
    return found or next((t for t in types if t != "text/html"), UNKNOWN)


def is_html(head: bytes) -> bool:
    """Whether a browser would show it as a page."""
    return _HTML.match(head) is not None


def _media_type(claim: str | None) -> str | None:
    """The type alone, in lower case; None where it is none, or says nothing."""
    name = (claim or "").partition(";")[0].strip().lower()
    return name if _TYPE.fullmatch(name) and name not in (UNKNOWN, "binary/octet-stream") else None


def _is_text(head: bytes) -> bool:
    if _CONTROLS.search(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two at the end of what is looked at.
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True
