"""Which of the last lines of a message are a signature: what stands after `-- `, what the markup
says, what phones add, and a block of contact data under a rule. A greeting and a name belong to
the message."""

import re

from app.text import reply_words as words
from app.text.dashes import RULE
from app.text.lines import Line, Mark

# More lines than that are no signature, whatever stands above them.
MOST_LINES = 30
MOST_BLOCK_LINES = 12
LONGEST_BLOCK_LINE = 90
LONGEST_MOBILE_LINE = 80
# The same with the addresses of its links.
LONGEST_LINKED_LINE = 2_000

_DELIMITER = re.compile(r"[ \t]*(?:--|—)[ \t\u00a0]*")
_CONTACT = re.compile(
    r"@|https?://|www\.|(?:tel|fon|phone|mobile?|fax|電話|电话)\b|\+?\d[\d ()/.-]{7,}",
    re.IGNORECASE,
)
_SENT_FROM = re.compile(
    rf"[\s*_(\[]*(?:{words.SENT_FROM})(?:(?<=[^\x00-\x7f])|(?!\w)).*|.*(?:iphone|ipad|android|handy|phone|mobile|telefon|gerät|smartphone|mail|outlook).{{0,20}}(?:{words.SENT_FROM_AT_END})\W*",
    re.IGNORECASE,
)
_LINKS = re.compile(r"[<(\[](?:https?://|mailto:)[^\s<>]*[>)\]]|https?://\S+")
# A sentence that only begins like one: "Sent from my desk, which is tidy."
_SENTENCE = re.compile(
    r",\s(?!an?\s)\w+\s\w+|[.!?]\s+\w|\b(?:is|was|are|und ich|weil|because|and i|but)\b",
    re.IGNORECASE,
)


def is_mobile(text: str) -> bool:
    """Whether a line is one that a phone or a program adds."""
    if len(text) > LONGEST_LINKED_LINE:
        return False
    said = _LINKS.sub("", text).strip(" \t*_")
    return (
        3 < len(said) <= LONGEST_MOBILE_LINE
        and len(said.split()) <= 12
        and _SENT_FROM.fullmatch(said) is not None
        and _SENTENCE.search(said) is None
    )


def split_signature(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    """Split the lines of a message into what was written and the signature below it."""
    end = _end_of_words(lines)
    start = end
    for find in (_by_markup, _by_delimiter, _by_device, _by_rule, _by_device):
        start = min(start, find(lines, start))
    if start >= end or not any(not line.is_blank for line in lines[:start]):
        return lines, []
    return lines[:start], lines[start:]


def _end_of_words(lines: list[Line]) -> int:
    end = len(lines)
    while end and lines[end - 1].is_blank:
        end -= 1
    return end


def _by_markup(lines: list[Line], end: int) -> int:
    start = end
    while start and (lines[start - 1].mark is Mark.SIGNATURE or lines[start - 1].is_blank):
        start -= 1
    return start if any(line.mark is Mark.SIGNATURE for line in lines[start:end]) else end


def _by_delimiter(lines: list[Line], end: int) -> int:
    found = end
    for index in range(end - 1, max(end - 1 - MOST_LINES, -1), -1):
        if _DELIMITER.fullmatch(lines[index].text):
            found = index
    return found


def _by_device(lines: list[Line], end: int) -> int:
    start = end
    for index in range(end - 1, max(end - 4, -1), -1):
        if lines[index].is_blank:
            continue
        if not is_mobile(lines[index].text):
            break
        start = index
    return start


def _by_rule(lines: list[Line], end: int) -> int:
    """A block of contact data between rules, or below one, as is usual in Japan."""
    last = end - 1
    while last >= 0 and (lines[last].is_blank or RULE.fullmatch(lines[last].text)):
        last -= 1
    filled = 0
    has_contact = False
    for index in range(last, -1, -1):
        text = lines[index].text
        if RULE.fullmatch(text):
            return index if has_contact and filled else end
        if len(text) > LONGEST_BLOCK_LINE or filled > MOST_BLOCK_LINES:
            return end
        filled += not lines[index].is_blank
        has_contact = has_contact or _CONTACT.search(text) is not None
    return end
