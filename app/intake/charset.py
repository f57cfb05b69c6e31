"""From the bytes of a body to its text: by the charset that its Content-Type declares, or UTF-8.

JSON is UTF-8 (RFC 8259); what a sender or a proxy declares is heeded all the same.
"""

import codecs
from email.message import Message
from functools import lru_cache

# Little endian first where one begins like the other.
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# For host names: they take quadratic time, or raise what is no UnicodeDecodeError.
_OF_NAMES = ("punycode", "idna", "undefined")
_ASCII = bytes(range(128))


@lru_cache(maxsize=64)
def declared_charset(content_type: str | None) -> str | None:
    """The codec of the charset that a Content-Type names; None: UTF-8, or none that is known."""
    if content_type is None or len(content_type) > 200:
        return None
    message = Message()
    message["content-type"] = content_type
    name = message.get_content_charset()
    try:
        codec = codecs.lookup(name) if name else None
    except (LookupError, ValueError):
        return None
    # Some codecs make something else than text of bytes, or unescape what they read.
    if codec is None or not codec._is_text_encoding or "escape" in codec.name:
        return None
    if codec.name in _OF_NAMES:
        return None
    # What is called ISO 8859-1 is windows-1252: https://encoding.spec.whatwg.org/#names-and-labels
    return {"utf-8": None, "ascii": None, "iso8859-1": "cp1252"}.get(codec.name, codec.name)


def is_read_as_utf_8(body: bytes, content_type: str | None) -> bool:
    """Whether it is UTF-8 by declaration, or ASCII that is the same in the declared charset."""
    charset = declared_charset(content_type)
    return charset is None or (body.isascii() and _is_single_byte(charset))


def decode(body: bytes, content_type: str | None) -> str:
    """The text of a body.

    Raises:
        UnicodeDecodeError: it has bytes that its charset has not.
    """
    charset = charset_of(body, content_type)
    if charset == "utf-8-sig":
        return body.decode(charset)
    if _is_single_byte(charset):
        # Text in such a charset is as good as never valid UTF-8, but UTF-8 is often declared wrong.
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    return body.decode(charset)


def decode_with_gaps(body: bytes, content_type: str | None) -> tuple[str, str | None]:
    """The text of a body with U+FFFD for each byte that its charset has not, and what to say of
    it."""
    try:
        return decode(body, content_type), None
    except UnicodeDecodeError as error:
        charset = charset_of(body, content_type)
        text = body.decode(charset, "replace")
        count = text.count("\ufffd") - body.count("\ufffd".encode())
        name = "UTF-8" if charset == "utf-8-sig" else charset
        return text, f"bytes that are not {name} were replaced: {count}, the first at {error.start}"


def charset_of(body: bytes, content_type: str | None) -> str:
    """The codec by which a body is read: that of its byte order mark, else the declared one."""
    for bom, name in _BOMS:
        if body.startswith(bom):
            return name
    return declared_charset(content_type) or "utf-8-sig"


@lru_cache(maxsize=64)
def _is_single_byte(charset: str) -> bool:
    if charset.startswith(("iso2022", "hz", "utf")):
        return False
    try:
        every_byte = bytes(range(256)).decode(charset, "replace")
    except (UnicodeError, LookupError):
        return False
    return len(every_byte) == 256 and every_byte.startswith(_ASCII.decode())
