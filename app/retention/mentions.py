"""Where nobody could read an email or a webhook, its bytes are searched for what it is about.

A pattern is one for Python and for PostgreSQL alike, to be matched without regard to case:
https://www.postgresql.org/docs/current/functions-matching.html#POSIX-SYNTAX-DETAILS
In doubt it matches: what an erasure leaves behind is worse than an unreadable webhook too few.
"""

import gzip
import json
import re
import zlib
from typing import Any

from app.models.erasure import ErasedBy

# A compressed body of a stranger may become very large.
MOST_BYTES = 32 * 1024 * 1024
# Quoted-printable breaks lines anywhere; within JSON its line break is written as an escape.
_SOFT_BREAK = r"(?:=(?:[\\]+r)?[\\]+n|=\r?\n)?"
_BEFORE = r"(?:^|[^a-z0-9._+-]|[\\]+[bfnrt]|[\\]+u[0-9a-f]{4}|%[0-9a-f]{2}|=[0-9a-f]{2}|=\r?\n)"
_AFTER = "(?![a-z0-9-])"


def pattern_of(kind: ErasedBy, value: str) -> str:
    """What bytes hold that are about this sender or ticket: an address in plain text, with JSON's
    escapes, percent-encoded, quoted-printable or with HTML's references; a ticket as the field of
    a trigger."""
    if kind is ErasedBy.SENDER:
        return _BEFORE + _SOFT_BREAK.join(map(_spellings, value)) + _AFTER
    ticket = "".join(map(_plain, value))
    return rf'ticket_id["\\\s]*:["\\\s]*{ticket}(?![0-9a-z])'


def is_about(kind: ErasedBy, value: str, body: bytes | None, others: str) -> bool:
    """Whether a refused webhook is of this sender or ticket.

    Where it says itself whose it is, that counts: one that quotes the address is another's.

    Args:
        others: what is kept of it besides its body.
    """
    pattern = re.compile(pattern_of(kind, value), re.IGNORECASE)
    texts = _texts(body or b"")
    fields = _fields(texts[0])
    sender, ticket = fields.get("from_email"), _ticket_of(fields)
    if kind is ErasedBy.SENDER and isinstance(sender, str) and sender.strip():
        return pattern.search(sender) is not None
    if kind is ErasedBy.TICKET and ticket is not None:
        return ticket == value
    return any(pattern.search(text) for text in (*texts, others))


def _spellings(character: str) -> str:
    ways = {_plain(character)}
    for form in {character.lower(), character.upper()}:
        units = form.encode("utf-16-be", "surrogatepass").hex()
        ways.add("".join(rf"[\\]+u{units[at : at + 4]}" for at in range(0, len(units), 4)))
        octets = form.encode("utf-8", "surrogatepass").hex()
        pairs = [octets[at : at + 2] for at in range(0, len(octets), 2)]
        ways |= {"".join(f"{mark}{pair}" for pair in pairs) for mark in "%="}
        if len(form) == 1:
            ways |= {f"&#0*{ord(form)};", f"&#x0*{ord(form):x};"}
    return f"(?:{'|'.join(sorted(ways))})"


def _plain(character: str) -> str:
    if character == "\\":
        return r"[\\]+"
    if character in '"/':
        return rf"[\\]*{character}"
    is_special = character.isascii() and not character.isalnum() and character not in "_@"
    return f"\\{character}" if is_special else character


def _texts(body: bytes) -> list[str]:
    """A body in the ways in which it may be read."""
    if body[:2] == b"\x1f\x8b":
        try:
            body = zlib.decompressobj(wbits=31).decompress(body, MOST_BYTES)
        except (zlib.error, gzip.BadGzipFile):
            return [""]
    texts = [body.decode("utf-8-sig", "replace")]
    if b"\x00" in body or body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        texts += [body.decode(name, "replace") for name in ("utf-16", "utf-16-le", "utf-16-be")]
    return texts


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _ticket_of(fields: dict[str, Any]) -> str | None:
    """As a trigger names it, or an event."""
    detail = fields.get("detail")
    for ticket in (fields.get("ticket_id"), detail.get("id") if isinstance(detail, dict) else None):
        if isinstance(ticket, str | int) and str(ticket).strip():
            return str(ticket).strip()
    return None
