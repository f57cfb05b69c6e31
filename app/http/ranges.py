"""Parts of an answer, and answers that the asker has already (RFC 9110, 13 and 14)."""

import re

import attrs

from app.errors import MailroomError

_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*")
_TAG = re.compile(r'(?:W/)?"[^"]*"')


@attrs.frozen
class Part:
    """The bytes from `start` up to `end`, which is not among them."""

    start: int
    end: int

    def content_range(self, size: int) -> str:
        """The header that says which part it is."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class NoSuchPartError(MailroomError):
    """Nothing of what is there was asked for: 416."""


def asked_part(value: str | None, size: int) -> Part | None:
    """The part that a header `Range` asks for; None for the whole.

    What is not understood asks for the whole, and so do several parts at once: both is a server's
    right.

    Raises:
        NoSuchPartError: it begins behind the end.
    """
    match = _RANGE.fullmatch(value or "")
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        part = Part(max(size - int(suffix), 0), size)
    else:
        part = Part(int(first), min(int(last) + 1, size) if last else size)
        if last and int(last) < int(first):
            return None
    if part.start >= part.end:
        raise NoSuchPartError(f"there are {size} bytes: ask for some of these")
    return part


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether whoever asks has this version: 304."""
    value = (if_none_match or "").strip()
    return value == "*" or etag in (tag.removeprefix("W/") for tag in _TAG.findall(value))


def is_same(if_range: str | None, etag: str) -> bool:
    """Whether a part fits to what whoever asks has of it; a time never says so for sure."""
    return if_range is None or if_range.strip() == etag
