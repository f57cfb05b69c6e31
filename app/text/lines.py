"""Lines of an email, each with what is known of it besides its words: how deep it is quoted,
and what its markup says. Both plain text and HTML come down to them; all rules work on them."""

import re
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

# Also what East Asian keyboards write in its place.
QUOTE_MARKS = re.compile(r"(?:[ \t\u00a0]{0,3}[>＞])+[ \t\u00a0]?")
LINE_ENDS = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\u2028\u2029]")
# What a client that flows its text breaks lines at; shorter lines were broken by their writer.
FLOWED_LENGTH = 55
FLOWED_SHARE = 0.8
# What follows is one more line to the rules, as long as it may be.
MOST_LINES = 110_000


class Mark(IntEnum):
    """What the markup of a mail client says of a line."""

    NONE = 0
    # "On ... wrote:", whatever the language.
    ATTRIBUTION = 1
    # An earlier email begins here and goes on to the end.
    EARLIER = 2
    # The same, if lines such as "From: ..." follow.
    PERHAPS_EARLIER = 3
    SIGNATURE = 4
    FORWARDED = 5


class Line(NamedTuple):
    """One line as it is shown.

    Attributes:
        text: without its quote marks.
        depth: how often it is quoted; 0 is not at all.
        mark: what its markup says.
        bare: how deep it stands in block quotes that need not be those of a reply.
        box: number of the element in which the mail client put the earlier email; 0 is none.
        raw: as it was written, where that differs from the text.
    """

    text: str
    depth: int = 0
    mark: Mark = Mark.NONE
    bare: int = 0
    box: int = 0
    raw: str | None = None

    @property
    def is_blank(self) -> bool:
        """There is nothing to read in it."""
        return not self.text or self.text.isspace()

    def shown(self) -> str:
        """The line with its quote marks."""
        if self.raw is not None:
            return self.raw
        return f"{'>' * self.depth} {self.text}".rstrip() if self.depth else self.text


def lines_of_text(text: str) -> list[Line]:
    """Split plain text into lines, and the marks of quoting from their words."""
    lines = []
    for raw in LINE_ENDS.split(text, MOST_LINES):
        match = QUOTE_MARKS.match(raw)
        if match is None:
            lines.append(Line(raw))
        else:
            marks = match[0]
            lines.append(Line(raw[match.end() :], marks.count(">") + marks.count("＞"), raw=raw))
    _unescape_from(lines)
    return _join_flowed(lines)


def _unescape_from(lines: list[Line]) -> None:
    """Mail servers write `>From` where a line began with `From`: that is no quoting."""
    for index, line in enumerate(lines):
        if line.depth == 1 and line.raw is not None and line.raw.startswith(">From "):
            around = lines[max(index - 1, 0) : index] + lines[index + 1 : index + 2]
            if not any(other.depth for other in around):
                lines[index] = Line(line.raw[1:])


def _join_flowed(lines: list[Line]) -> list[Line]:
    """Join the lines of text that was sent with `format=flowed` (RFC 3676).

    Its header is not passed on; that nearly all long lines end in a space tells it as well.
    """
    long_lines = [
        line
        for line, after in pairwise(lines)
        if len(line.text) >= FLOWED_LENGTH and after.depth == line.depth and not after.is_blank
    ]
    flowed = sum(line.text.endswith(" ") for line in long_lines)
    if flowed < 2 or flowed < FLOWED_SHARE * len(long_lines):
        return lines
    joined: list[Line] = []
    parts: list[str] = []
    for line, after in zip(lines, [*lines[1:], Line("")], strict=True):
        parts.append(line.text)
        goes_on = (
            line.text.endswith(" ")
            and len(line.text) >= FLOWED_LENGTH
            and after.depth == line.depth
            and not after.is_blank
        )
        if not goes_on:
            if len(parts) == 1:
                joined.append(line)
            else:
                text = "".join(parts)
                raw = f"{'>' * line.depth} {text}" if line.depth else None
                joined.append(line._replace(text=text, raw=raw))
            parts = []
    return joined
