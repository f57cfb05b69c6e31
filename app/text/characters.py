"""Characters as they were meant: control characters of the wrong code page, text decoded twice,
and what is invisible and carries no meaning."""

import re
from html import unescape

import ftfy

# Bytes of Windows-1252 that were taken for Latin-1; five of them have no meaning there either.
_C1 = {code: bytes([code]).decode("cp1252", "ignore") or None for code in range(0x80, 0xA0)}
# Controls, byte order marks, spaces without width, soft hyphens, fillers of hidden preheaders,
# and what turns the direction of writing round. Nothing of it is seen.
_REMOVED = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\U0001d173-\U0001d17a]"
)
_MARKS_OF_DIRECTION = re.compile("[\u200e\u200f]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
# Scripts in which (non-)joiners change how a word is written.
_JOINING = "\u0620-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u17ff\u1800-\u18af"
_NON_JOINER = re.compile(f"(?<![{_JOINING}])\u200c|\u200c(?![{_JOINING}])")
_EMOJI = "\u2190-\u2bff\u3030\u303d\ufe0f\U0001f000-\U0001faff\U0001f3fb-\U0001f3ff"
_JOINER = re.compile(f"(?<![{_JOINING}{_EMOJI}])\u200d|\u200d(?![{_JOINING}{_EMOJI}])")
# Letters of the plane of tags are part of a flag, or a hidden text.
_TAG_LETTERS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")

# What UTF-8 looks like when it was decoded as Windows-1252, Latin-1, or Windows-1251.
_PERHAPS_MOJIBAKE = re.compile(
    "[ÂÃÐÑâãäåæçèéð\u0420\u0421\u0432][\x80-\xbf\u0152-\u2122\u0400-\u045f]"
)
LONGEST_MENDED_LINE = 2_000
# No character has so high a number, and Python reads none of more than 4,300 digits.
_LONG_NUMBER = re.compile(r"&#([0-9]{8,}+);?")
_SPACES = str.maketrans({"\xa0": " ", "\u202f": " ", "\u2007": " "})


def unescaped(text: str) -> str:
    """The text of HTML, with its references to characters replaced, whatever they name."""
    return unescape(_LONG_NUMBER.sub(_shortened, text))


def _shortened(reference: re.Match[str]) -> str:
    digits = reference[1].lstrip("0")
    return f"&#{digits or '0'};" if len(digits) < 8 else "\ufffd"


def repair(text: str) -> str:
    """Replace control characters that are those of another code page."""
    if text.isascii():
        return text
    return text.translate(_C1)


def visible(text: str) -> str:
    """The text without characters that are not seen, but for those that shape others."""
    text = _REMOVED.sub("", text)
    if text.isascii():
        return text
    if "\u200c" in text:
        text = _NON_JOINER.sub("", text)
    if "\u200d" in text:
        text = _JOINER.sub("", text)
    if _MARKS_OF_DIRECTION.search(text) and not _RIGHT_TO_LEFT.search(text):
        text = _MARKS_OF_DIRECTION.sub("", text)
    return _TAG_LETTERS.sub("", text)


def breaking_spaces(text: str) -> str:
    """The text with ordinary spaces in place of those that do not break."""
    return text.translate(_SPACES)


def is_perhaps_mojibake(line: str) -> bool:
    """Whether it is worth a closer look."""
    return len(line) <= LONGEST_MENDED_LINE and _PERHAPS_MOJIBAKE.search(line) is not None


def mend(line: str) -> str:
    """Undo that UTF-8 was decoded as something else, where it is certain."""
    return ftfy.fix_encoding(line)
