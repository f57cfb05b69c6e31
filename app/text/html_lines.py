"""HTML to lines, with their words and breaks as a mail client shows them. It reads the tokens in
one pass and keeps no tree: what is open at a time is a stack of bounded height."""

import re
from typing import NamedTuple

from app.text import tags, tokens
from app.text.characters import unescaped
from app.text.elements import ElementReader, is_said, name_of_image
from app.text.line_writer import LineWriter, State
from app.text.lines import Line, Mark
from app.text.markup import NO_MEANING, Meaning
from app.text.styles import NOTHING, Style

# Reply chains of people nest 300 elements deep; what is nested deeper has no further effect.
DEEPEST = 1_000
# Tags read with all they mean. Emails of people have a tenth of it; beyond, only the ends of lines
# are read.
MOST_TAGS = 60_000
# How far up is looked for the element that an end tag ends or a start tag ends without saying so.
FARTHEST = 50
LONGEST_LINK = 4_000

_SPACE = re.compile(r"[ \t\n\r\f]+")
_MAKES_LINES = re.compile(
    r"<(?:br|p|div|table|tr|li|h[1-6]|pre|blockquote|html|body|ul|ol|center|!doctype)\b",
    re.IGNORECASE,
)


class _Open(NamedTuple):
    """An element that is open, and what held outside of it."""

    tag: str
    outside: State
    is_block: bool
    margin: bool
    link: str | None
    place: tuple[int, int]


class HtmlReader:
    """Reads one HTML text into lines.

    Args:
        reads_hidden: read what is hidden, too; for an email that shows nothing else.
        keeps_lines: read line breaks as such; for text that only has a few tags in it.
    """

    def __init__(self, *, reads_hidden: bool = False, keeps_lines: bool = False) -> None:
        self._reads_hidden = reads_hidden
        self._out = LineWriter(State(keeps_lines=keeps_lines))
        self.found_hidden = False
        self._swallowed_from: int | None = None
        self._elements = ElementReader()
        self._open: list[_Open] = []
        self._linked: _Open | None = None
        self._counts: dict[str, int] = {}
        self._too_deep = 0
        self._boxes = 0

    def read(self, html: str) -> list[Line]:
        """All lines of the HTML, in the order in which they stand there."""
        position = count = 0
        for match in tokens.TOKEN.finditer(html):
            kind = match.lastgroup
            if kind == "text":
                self._text(match[0])
            elif kind == "end":
                count += 1
                if count > MOST_TAGS:
                    position = match.start()
                    break
                self._tag(match)
            elif kind == "content":
                self._raw_element(match)
            if match.end() == len(html) and _has_no_end(match):
                # A style or a comment without end: a client shows nothing more.
                self.found_hidden = True
                self._swallowed_from = match.start()
        if position:
            self._out.rows(html[position:])
        elif self._reads_hidden and self._swallowed_from is not None:
            self._out.rows(html[self._swallowed_from :])
        self._out.end_line()
        return self._out.lines

    def _tag(self, match: "re.Match[str]") -> None:
        name = match["name"].lower().rstrip("/")
        if match["end"] != ">":
            # It is never closed: somebody's `<`, or the email was cut off within a tag.
            self._text(match[0])
        elif name not in tokens.KNOWN_TAGS and tokens.is_address(match[0][1:-1]):
            self._out.words(match[0])
        elif match["slash"]:
            self._end(name)
        else:
            self._start(name, match["attributes"])

    def _start(self, tag: str, attribute_text: str) -> None:
        if tag == "br":
            self._line_break()
            return
        if tag == "a":
            # As in HTML: links do not nest, and a second start ends the first.
            self._end_link()
        if tag in tags.ENDS:
            self._end_implied(*tags.ENDS[tag])
        elif tag in tags.BLOCK_START_ENDS_P and self._counts.get("p"):
            self._end_implied(*tags.ENDS["p"])
        attributes, style, meaning = self._elements.look_at(tag, attribute_text)
        if tag in tags.VOID_TAGS:
            self._void(tag, attributes, style, meaning)
            return
        if len(self._open) >= DEEPEST:
            self._too_deep += 1
            self._out.block(1 if tag in tags.BLOCK_TAGS else 0)
            return
        outside = self._out.state
        self._out.state = self._inside(outside, tag, style, meaning)
        is_block = (tag in tags.BLOCK_TAGS) if style.block is None else style.block
        margin = is_block and self._has_margin(tag, style)
        if is_block:
            self._out.block(2 if margin else 1)
        self._begin_structure(tag, attributes)
        if meaning.mark in (Mark.EARLIER, Mark.PERHAPS_EARLIER):
            self._out.pending_mark = meaning.mark
        link = unescaped(attributes.get("href", ""))[:LONGEST_LINK].strip() if tag == "a" else None
        if link and self._out.wanted:
            self._out.end_line()
        place = (len(self._out.lines), len(self._out.parts))
        element = _Open(tag, outside, is_block, margin, link or None, place)
        self._open.append(element)
        if link and (self._out.state.is_shown or self._reads_hidden):
            self._linked = element
        self._counts[tag] = self._counts.get(tag, 0) + 1

    def _line_break(self) -> None:
        if self._out.state.is_shown or self._reads_hidden:
            self._out.line_break()

    def _inside(self, outside: State, tag: str, style: Style, meaning: Meaning) -> State:
        if (
            style == NOTHING
            and meaning == NO_MEANING
            and tag != "pre"
            and tag not in tags.UNSHOWN_TAGS
        ):
            return outside
        box = outside.box
        if meaning.is_box and not box:
            self._boxes += 1
            box = self._boxes
        mark = outside.mark
        if meaning.mark in (Mark.ATTRIBUTION, Mark.SIGNATURE, Mark.FORWARDED):
            mark = meaning.mark
        return State(
            hidden=outside.hidden or style.hidden or tag in tags.UNSHOWN_TAGS,
            invisible=outside.invisible if style.invisible is None else style.invisible,
            font_is_zero=(
                outside.font_is_zero if style.font_is_zero is None else style.font_is_zero
            ),
            keeps_white_space=(
                tag == "pre" or outside.keeps_white_space
                if style.keeps_white_space is None
                else style.keeps_white_space
            ),
            keeps_lines=outside.keeps_lines if style.keeps_lines is None else style.keeps_lines,
            depth=outside.depth + meaning.is_quote,
            bare=outside.bare + meaning.is_bare_quote,
            box=box,
            mark=mark,
        )

    def _has_margin(self, tag: str, style: Style) -> bool:
        if style.has_margin is not None:
            return style.has_margin and tag in tags.MARGIN_TAGS
        # Lists within lists have none.
        return tag in tags.MARGIN_TAGS and not (tag in tags.LIST_TAGS and self._out.lists)

    def _begin_structure(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in tags.LIST_TAGS:
            start = attributes.get("start", "1")
            number = int(start) if start.isascii() and start.isdigit() and len(start) < 9 else 1
            self._out.lists.append([number if tag == "ol" else None])
        elif tag == "li":
            self._out.begin_item()
        elif tag in tags.CELL_TAGS:
            self._out.begin_cell()
        elif tag == "q":
            self._out.words('"')

    def _end(self, tag: str) -> None:
        if self._too_deep:
            self._too_deep -= 1
            self._out.block(1 if tag in tags.BLOCK_TAGS else 0)
            return
        if not self._counts.get(tag):
            if tag == "p":
                self._out.block(2)
            elif tag == "br":
                self._line_break()
            return
        if tag not in tags.TABLE_TAGS and not self._is_in_reach(tag):
            return
        while self._open:
            if self._close() == tag:
                return

    def _is_in_reach(self, tag: str) -> bool:
        """Whether an element of this tag is open in the innermost table cell."""
        if not (self._counts.get("td") or self._counts.get("th")):
            return True
        for element in reversed(self._open[-FARTHEST:]):
            if element.tag == tag:
                return True
            if element.tag in tags.CELL_TAGS:
                return False
        return False

    def _end_implied(self, ended: tuple[str, ...], holders: frozenset[str]) -> None:
        if not any(self._counts.get(tag) for tag in ended):
            return
        for height, element in enumerate(reversed(self._open[-FARTHEST:]), 1):
            if element.tag in ended:
                for _ in range(height):
                    self._close()
                return
            if element.tag in holders:
                return

    def _close(self) -> str:
        element = self._open.pop()
        tag = element.tag
        self._counts[tag] -= 1
        if element is self._linked:
            self._end_link()
        if tag == "q":
            self._out.words('"')
        if element.is_block:
            self._out.block(2 if element.margin else 1)
        if tag in tags.CELL_TAGS:
            self._out.end_cell()
        elif tag == "tr":
            self._out.end_row()
        elif tag in tags.LIST_TAGS and self._out.lists:
            self._out.lists.pop()
        elif tag == "li":
            self._out.end_item()
        self._out.state = element.outside
        return tag

    def _end_link(self) -> None:
        element, self._linked = self._linked, None
        if element is None:
            return
        address = element.link or ""
        line, part = element.place
        # It may have begun some lines above.
        shown = "".join(self._out.parts[part if line == len(self._out.lines) else 0 :]).strip()
        if address.lower().startswith("mailto:"):
            address = address[7:].partition("?")[0]
        elif not re.match(r"(?:https?|ftp)://", address, re.IGNORECASE):
            return
        is_above = not shown
        if is_above:
            # A line break stands behind its words.
            shown = " ".join(above.text for above in self._out.lines[line:]).strip()
        if shown and address and not is_said(address, shown):
            self._out.append_words(f"<{_SPACE.sub('', address)}>")
            if is_above:
                self._out.end_line()

    def _void(self, tag: str, attributes: dict[str, str], style: Style, meaning: Meaning) -> None:
        if meaning.mark in (Mark.EARLIER, Mark.PERHAPS_EARLIER):
            self._out.pending_mark = meaning.mark
        if (
            not self._inside(self._out.state, tag, style, NO_MEANING).is_shown
            and not self._reads_hidden
        ):
            return
        if tag == "hr":
            self._out.block(1)
            self._out.words("---")
            self._out.block(1)
        elif tag == "img":
            self._out.words(name_of_image(attributes))
        elif tag == "input" and attributes.get("type", "text").lower() in (
            "text",
            "submit",
            "button",
        ):
            self._text(attributes.get("value", ""))

    def _raw_element(self, match: "re.Match[str]") -> None:
        tag = match["raw"].lower()
        if tag == "style":
            self._elements.add_sheet(match["content"])
        elif tag in ("textarea", "xmp"):
            outside = self._out.state
            self._out.block(1)
            self._out.state = outside._replace(keeps_white_space=True)
            content = match["content"]
            self._text(content if tag == "textarea" else content.replace("&", "&amp;"))
            self._out.state = outside
            self._out.block(1)
        elif match["content"].strip() and tag in ("template", "noframes", "iframe"):
            self.found_hidden = True
            if self._reads_hidden:
                self._out.rows(match["content"])

    def _text(self, text: str) -> None:
        if "&" in text:
            text = unescaped(text)
        state = self._out.state
        if not state.is_shown and not self._reads_hidden:
            self.found_hidden = self.found_hidden or not text.isspace()
            return
        if state.keeps_white_space or state.keeps_lines:
            self._out.kept(text)
            return
        self._out.flowing(text)


def _has_no_end(match: "re.Match[str]") -> bool:
    if match.lastgroup == "content":
        return match.end("content") == match.end() or not match[0].endswith(">")
    return match[0].startswith("<!--") and not match[0].endswith(("-->", "--!>"))


def lines_of_html(html: str) -> list[Line]:
    """The lines that a mail client shows of this HTML; the hidden ones if it shows none."""
    reader = HtmlReader(keeps_lines=_MAKES_LINES.search(html) is None)
    lines = reader.read(html)
    if reader.found_hidden and not any(line.text.strip() for line in lines):
        return HtmlReader(reads_hidden=True).read(html)
    return lines
