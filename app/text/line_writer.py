"""Writes the lines of HTML: its words, and before them the line breaks, margins, markers and
separators that were asked for meanwhile."""

import re
from itertools import pairwise
from typing import NamedTuple

from app.text.characters import unescaped
from app.text.lines import Line, Mark

# Blank lines in a row; more say nothing more.
MOST_BLANK_LINES = 5
# Lines of what is read without its tags.
MOST_ROWS = 60_000

_SPACE = re.compile(r"[ \t\n\r\f]+")
_NEW_LINE = re.compile(r"\r\n|[\r\n]")
_TAG = re.compile(r"<(?:/?[a-zA-Z!?](?:[^>\"']++|\"[^\"]*+\"|'[^']*+'|[\"'])*(?:>|\Z))")
_LINE_TAG = re.compile(r"(?=<(?:br|/p|/div|/tr|/li|/h[1-6]|/blockquote|/pre)\b)", re.IGNORECASE)
_CELL_TAG = re.compile(r"(?=</t[dh]\b)", re.IGNORECASE)
_SPACE_IN_ROW = re.compile(r"[ \f\r]+")


class State(NamedTuple):
    """What holds at a place in the HTML, by all elements that are open there."""

    hidden: bool = False
    invisible: bool = False
    font_is_zero: bool = False
    keeps_white_space: bool = False
    keeps_lines: bool = False
    depth: int = 0
    bare: int = 0
    box: int = 0
    mark: Mark = Mark.NONE

    @property
    def is_shown(self) -> bool:
        """Whether text is shown there."""
        return not (self.hidden or self.invisible or self.font_is_zero)


class LineWriter:
    """The lines of one HTML text, as they are read.

    Attributes:
        lines: those that are complete.
        parts: the words of the one that is being written.
        state: what holds for what comes next.
        wanted: what has to stand before the next word: 0 nothing, 1 a new line, 2 a blank one.
        pending_mark: the mark of the next line.
        lists: the lists that are open; the next number of each, None if it has none.
    """

    def __init__(self, state: State) -> None:
        self.lines: list[Line] = []
        self.parts: list[str] = []
        self.state = state
        self.wanted = 0
        self.pending_mark = Mark.NONE
        self.lists: list[list[int | None]] = []
        self._line_state = state
        self._mark = Mark.NONE
        self._space = False
        self._separator = ""
        # At the beginning of a cell or an item: blocks do not begin a new line there.
        self._is_fresh = False
        self._marker = ""
        self._cell_from = 0

    def flowing(self, text: str) -> None:
        """Text whose white space is one space, and none at the ends of a line."""
        text = _SPACE.sub(" ", text)
        core = text.strip(" ")
        if not core:
            self._space = self._space or bool(text)
            return
        self._space = self._space or text[0] == " "
        self.words(core)
        self._space = text[-1] == " "

    def append_words(self, words: str) -> None:
        """Write words to the line that was written last, after a space."""
        wanted, self.wanted = self.wanted, 0
        self._space = True
        self.words(words)
        self.wanted = wanted

    def begin_item(self) -> None:
        """An item of a list begins: its marker stands before its first word."""
        self._marker = self._next_marker()
        self._is_fresh = True

    def end_item(self) -> None:
        """An item ends, with or without words."""
        self._marker = ""
        self._is_fresh = False

    def begin_cell(self) -> None:
        """A cell of a table begins."""
        self._cell_from = len(self.lines)
        self._is_fresh = True

    def end_row(self) -> None:
        """A row ends."""
        self._separator = ""

    def _next_marker(self) -> str:
        if not self.lists:
            return "- "
        number = self.lists[-1][0]
        indent = "  " * min(len(self.lists) - 1, 8)
        if number is None:
            return f"{indent}- "
        self.lists[-1][0] = number + 1
        return f"{indent}{number}. "

    def end_cell(self) -> None:
        """What a row shows side by side stays on a line, if each cell is one line."""
        if self._is_fresh:
            # It is empty, and changes nothing.
            self._is_fresh = False
            return
        if len(self.lines) == self._cell_from and self.parts:
            self.wanted = 0
            self._separator = "\t"
        else:
            self.block(1)

    def kept(self, text: str) -> None:
        """Text whose line breaks are shown, and its other white space unless it says not."""
        rows = _NEW_LINE.split(text)
        if not self.parts and len(rows) > 1 and not rows[0].strip() and self.wanted:
            # The line break right after `<pre>` is not shown.
            del rows[0]
        for row, after in pairwise([*rows, None]):
            if row:
                if self.state.keeps_lines:
                    row = _SPACE.sub(" ", row)
                self.words(row)
            if after is not None:
                self.line_break()

    def words(self, words: str) -> None:
        """Write words to the line, after what has to stand before them."""
        if not words:
            return
        self._take_break()
        parts = self.parts
        if not parts:
            self._line_state = self.state
            self._mark = self.pending_mark or self.state.mark
            self.pending_mark = Mark.NONE
            if self._marker:
                parts.append(self._marker)
                self._marker = ""
        elif self._separator:
            parts.append(self._separator)
        elif self._space:
            parts.append(" ")
        self._space = False
        self._separator = ""
        self._is_fresh = False
        parts.append(words)

    def _take_break(self) -> None:
        """Begin the new line, after a blank one perhaps, that has to stand before what comes."""
        if not self.wanted:
            return
        self.end_line()
        if self.wanted == 2 and self.lines and self.lines[-1].text:
            if self.state.depth < self._line_state.depth:
                self._line_state = self.state
            self._append("")
        self.wanted = 0
        if self._is_fresh:
            self._cell_from = len(self.lines)

    def block(self, wanted: int) -> None:
        """Ask for a new line (1) or a blank one (2) before the next words."""
        if not self._is_fresh and wanted > self.wanted:
            self.wanted = wanted
        if wanted:
            self._space = False

    def line_break(self) -> None:
        """End the line, or write a blank one."""
        self._take_break()
        if self.parts:
            self.end_line()
        elif len(self.lines) < MOST_BLANK_LINES or any(
            line.text for line in self.lines[-MOST_BLANK_LINES:]
        ):
            self._line_state = self.state
            self._append("")
        self._space = False
        self._is_fresh = False

    def end_line(self) -> None:
        """Complete the line that is being written, if there is one."""
        if self.parts:
            text = "".join(self.parts).rstrip(" ")
            self.parts = []
            self._append(text)

    def _append(self, text: str) -> None:
        state = self._line_state
        mark = self._mark if text else state.mark
        self.lines.append(Line(text, state.depth, mark, state.bare, state.box))

    def rows(self, html: str) -> None:
        """What stands between the tags, without their meaning but for the ends of lines."""
        html = _CELL_TAG.sub("\t", _LINE_TAG.sub("\n", html))
        text = _SPACE_IN_ROW.sub(" ", unescaped(_TAG.sub("", html)))
        self.end_line()
        self._line_state = self.state
        for row in text.split("\n", MOST_ROWS):
            words = row.strip(" \t")
            if words:
                self._append(words)
