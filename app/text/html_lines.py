"""HTML to lines, with their words and breaks as a mail client shows them. It reads the tokens in
one pass and keeps no tree: what is open at a time is a stack of bounded height."""

import re
from html import unescape
from itertools import pairwise
from typing import NamedTuple

from app.text import tokens
from app.text.lines import Line, Mark
from app.text.markup import NO_MEANING, Meaning, meaning_of
from app.text.styles import NOTHING, Sheet, Style, read_declarations

# Reply chains of people nest 300 elements deep; what is nested deeper has no further effect.
DEEPEST = 1_000
# Tags read with all they mean, and different styles. Emails of people have a tenth of it; beyond,
# only the ends of lines are read, and no styles.
MOST_TAGS = 60_000
MOST_STYLES = 5_000
MOST_CLASSES = 20
# How far up is looked for the element that an end tag ends or a start tag ends without saying so.
FARTHEST = 50
# Blank lines in a row; the rest says nothing more.
MOST_BLANK_LINES = 5
LONGEST_LINK = 4_000

_SPACE = re.compile(r"[ \t\n\r\f]+")
_NEW_LINE = re.compile(r"\r\n|[\r\n]")
_TAG = re.compile(r"<(?:/?[a-zA-Z!?](?:[^>\"']++|\"[^\"]*+\"|'[^']*+'|[\"'])*+(?:>|\Z))")
_LINE_TAG = re.compile(r"(?=<(?:br|/p|/div|/tr|/li|/h[1-6]|/blockquote|/pre)\b)", re.IGNORECASE)
_CELL_TAG = re.compile(r"(?=</t[dh]\b)", re.IGNORECASE)
_SPACE_IN_ROW = re.compile(r"[ \f\r]+")

_MAKES_LINES = re.compile(
    r"<(?:br|p|div|table|tr|li|h[1-6]|pre|blockquote|html|body|ul|ol|center|!doctype)\b",
    re.IGNORECASE,
)

_BLOCK_TAGS = tokens.words(
    "address article aside blockquote body caption center dd details dialog dir div dl dt "
    "fieldset figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 header hgroup hr html "
    "legend li main menu nav ol optgroup option p pre search section summary table tbody tfoot "
    "thead tr ul"
)
_MARGIN_TAGS = frozenset(
    [
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "dl",
        "pre",
        "blockquote",
        "figure",
        "menu",
        "dir",
    ]
)
_VOID_TAGS = tokens.words(
    "area base basefont br col embed frame hr img input link meta param source track wbr"
)
_CELL_TAGS = frozenset({"td", "th"})
_TABLE_TAGS = frozenset({"table", "tbody", "thead", "tfoot", "tr", "td", "th", "caption"})
_LIST_TAGS = frozenset({"ul", "ol", "menu", "dir"})
_UNSHOWN_TAGS = frozenset({"xml", "datalist", "audio", "video", "canvas"})
# A start tag of these ends an open one of the others, up to the element that holds them.
_ENDS = {
    "p": (("p",), frozenset({"div", "td", "th", "li", "blockquote", "body"})),
    "li": (("li",), _LIST_TAGS),
    "td": (("td", "th"), frozenset({"tr", "table"})),
    "th": (("td", "th"), frozenset({"tr", "table"})),
    "tr": (("tr",), frozenset({"table"})),
    "dd": (("dd", "dt"), frozenset({"dl"})),
    "dt": (("dd", "dt"), frozenset({"dl"})),
    "option": (("option",), frozenset({"select"})),
}
_BARE_QUOTE = Meaning(is_bare_quote=True)
_BLOCK_START_ENDS_P = _BLOCK_TAGS - {"p", "body", "html", "option", "tr", "tbody"}


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
        self.lines: list[Line] = []
        self.found_hidden = False
        self._swallowed_from: int | None = None
        self._sheet = Sheet()
        self._seen: dict[tuple[str, str], tuple[dict[str, str], Style, Meaning]] = {}
        self._styles = 0
        self._state = State(keeps_lines=keeps_lines)
        self._open: list[_Open] = []
        self._counts: dict[str, int] = {}
        self._too_deep = 0
        self._boxes = 0
        # The line that is being written.
        self._parts: list[str] = []
        self._line_state = self._state
        self._mark = Mark.NONE
        self._space = False
        # What has to stand before the next word: 0 nothing, 1 a new line, 2 a blank one.
        self._break = 0
        self._separator = ""
        # At the beginning of a cell or an item: blocks do not begin a new line there.
        self._is_fresh = False
        self._marker = ""
        self._lists: list[list[int | None]] = []
        self._cell_from = 0
        self._pending_mark = Mark.NONE

    def read(self, html: str) -> list[Line]:
        """All lines of the HTML, in the order in which they stand there."""
        position = tags = 0
        for match in tokens.TOKEN.finditer(html):
            kind = match.lastgroup
            if kind == "text":
                self._text(match[0])
            elif kind == "end":
                tags += 1
                if tags > MOST_TAGS:
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
            self._rest(html[position:])
        elif self._reads_hidden and self._swallowed_from is not None:
            self._rest(html[self._swallowed_from :])
        self._end_line()
        return self.lines

    def _tag(self, match: "re.Match[str]") -> None:
        name = match["name"].lower().rstrip("/")
        if match["end"] != ">":
            # It is never closed: somebody's `<`, or the email was cut off within a tag.
            self._text(match[0])
        elif name not in tokens.KNOWN_TAGS and tokens.is_address(match[0][1:-1]):
            self._words(match[0])
        elif match["slash"]:
            self._end(name)
        else:
            self._start(name, match["attributes"])

    def _start(self, tag: str, attribute_text: str) -> None:
        if tag == "br":
            self._line_break()
            return
        if tag in _ENDS:
            self._end_implied(*_ENDS[tag])
        elif tag in _BLOCK_START_ENDS_P and self._counts.get("p"):
            self._end_implied(*_ENDS["p"])
        attributes, style, meaning = self._look_at(tag, attribute_text)
        if tag in _VOID_TAGS:
            self._void(tag, attributes, style, meaning)
            return
        if len(self._open) >= DEEPEST:
            self._too_deep += 1
            self._block(1 if tag in _BLOCK_TAGS else 0)
            return
        outside = self._state
        self._state = self._inside(outside, tag, style, meaning)
        is_block = (tag in _BLOCK_TAGS) if style.block is None else style.block
        margin = is_block and self._has_margin(tag, style)
        if is_block:
            self._block(2 if margin else 1)
        self._begin_structure(tag, attributes)
        if meaning.mark in (Mark.EARLIER, Mark.PERHAPS_EARLIER):
            self._pending_mark = meaning.mark
        link = unescape(attributes.get("href", ""))[:LONGEST_LINK].strip() if tag == "a" else None
        if link and self._break:
            self._end_line()
        place = (len(self.lines), len(self._parts))
        self._open.append(_Open(tag, outside, is_block, margin, link or None, place))
        self._counts[tag] = self._counts.get(tag, 0) + 1

    def _look_at(self, tag: str, text: str) -> tuple[dict[str, str], Style, Meaning]:
        """What a start tag says. Most tags of an email say what another one has said."""
        if not text and not self._sheet.has_rules:
            return {}, NOTHING, _BARE_QUOTE if tag == "blockquote" else NO_MEANING
        seen = self._seen.get((tag, text))
        if seen is None:
            attributes = tokens.attributes_of(text)
            seen = attributes, *self._understand(tag, attributes, text)
            if len(self._seen) < MOST_STYLES:
                self._seen[tag, text] = seen
        return seen

    def _understand(self, tag: str, attributes: dict[str, str], text: str) -> tuple[Style, Meaning]:
        classes = attributes.get("class", "").lower().split()[:MOST_CLASSES]
        element_id = attributes.get("id", "").lower()
        style = self._sheet.style_of(tag, classes, element_id)
        if "style" in attributes and self._styles < MOST_STYLES:
            self._styles += 1
            style = read_declarations(unescape(attributes["style"])).over(style)
        if "hidden" in attributes:
            style = style._replace(hidden=True)
        if tag == "p" and style.has_margin is None and any("mso" in name for name in classes):
            # Outlook's own style sheet says so; its blank lines are paragraphs of their own.
            style = style._replace(has_margin=False)
        if tag == "font" and attributes.get("size"):
            style = style._replace(font_is_zero=False)
        return style, meaning_of(tag, [*classes, element_id], attributes)

    def _inside(self, outside: State, tag: str, style: Style, meaning: Meaning) -> State:
        if style == NOTHING and meaning == NO_MEANING and tag != "pre" and tag not in _UNSHOWN_TAGS:
            return outside
        box = outside.box
        if meaning.is_box and not box:
            self._boxes += 1
            box = self._boxes
        mark = outside.mark
        if meaning.mark in (Mark.ATTRIBUTION, Mark.SIGNATURE, Mark.FORWARDED):
            mark = meaning.mark
        return State(
            hidden=outside.hidden or style.hidden or tag in _UNSHOWN_TAGS,
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
            return style.has_margin and tag in _MARGIN_TAGS
        # Lists within lists have none.
        return tag in _MARGIN_TAGS and not (tag in _LIST_TAGS and self._lists)

    def _begin_structure(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in _LIST_TAGS:
            start = attributes.get("start", "1")
            number = int(start) if start.isascii() and start.isdigit() and len(start) < 9 else 1
            self._lists.append([number if tag == "ol" else None])
        elif tag == "li":
            self._marker = self._next_marker()
            self._is_fresh = True
        elif tag in _CELL_TAGS:
            self._cell_from = len(self.lines)
            self._is_fresh = True
        elif tag == "q":
            self._words('"')

    def _next_marker(self) -> str:
        if not self._lists:
            return "- "
        number = self._lists[-1][0]
        indent = "  " * min(len(self._lists) - 1, 8)
        if number is None:
            return f"{indent}- "
        self._lists[-1][0] = number + 1
        return f"{indent}{number}. "

    def _end(self, tag: str) -> None:
        if self._too_deep:
            self._too_deep -= 1
            self._block(1 if tag in _BLOCK_TAGS else 0)
            return
        if not self._counts.get(tag):
            if tag == "p":
                self._block(2)
            elif tag == "br":
                self._line_break()
            return
        if tag not in _TABLE_TAGS and not self._is_in_reach(tag):
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
            if element.tag in _CELL_TAGS:
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
        if element.link is not None:
            self._link(element)
        if tag == "q":
            self._words('"')
        if element.is_block:
            self._block(2 if element.margin else 1)
        if tag in _CELL_TAGS:
            self._end_cell()
        elif tag == "tr":
            self._separator = ""
        elif tag in _LIST_TAGS and self._lists:
            self._lists.pop()
        elif tag == "li":
            self._marker = ""
            self._is_fresh = False
        self._state = element.outside
        return tag

    def _end_cell(self) -> None:
        """What a row shows side by side stays on a line, if each cell is one line."""
        if self._is_fresh:
            # It is empty, and changes nothing.
            self._is_fresh = False
            return
        if len(self.lines) == self._cell_from and self._parts:
            self._break = 0
            self._separator = "\t"
        else:
            self._block(1)

    def _link(self, element: _Open) -> None:
        address = element.link or ""
        if not self._state.is_shown and not self._reads_hidden:
            return
        line, part = element.place
        # It may have begun some lines above.
        shown = "".join(self._parts[part if line == len(self.lines) else 0 :]).strip()
        if address.lower().startswith("mailto:"):
            address = address[7:].partition("?")[0]
        elif not re.match(r"(?:https?|ftp)://", address, re.IGNORECASE):
            return
        if shown and address and not _is_said(address, shown):
            wanted, self._break = self._break, 0
            self._space = True
            self._words(f"<{_SPACE.sub('', address)}>")
            self._break = wanted

    def _void(self, tag: str, attributes: dict[str, str], style: Style, meaning: Meaning) -> None:
        if meaning.mark in (Mark.EARLIER, Mark.PERHAPS_EARLIER):
            self._pending_mark = meaning.mark
        if (
            not self._inside(self._state, tag, style, NO_MEANING).is_shown
            and not self._reads_hidden
        ):
            return
        if tag == "hr":
            self._block(1)
            self._words("---")
            self._block(1)
        elif tag == "img":
            self._words(_name_of_image(attributes))
        elif tag == "input" and attributes.get("type", "text").lower() in (
            "text",
            "submit",
            "button",
        ):
            self._text(attributes.get("value", ""))

    def _raw_element(self, match: "re.Match[str]") -> None:
        tag = match["raw"].lower()
        if tag == "style":
            self._sheet.add(match["content"])
            self._seen.clear()
        elif tag in ("textarea", "xmp"):
            outside = self._state
            self._block(1)
            self._state = outside._replace(keeps_white_space=True)
            content = match["content"]
            self._text(content if tag == "textarea" else content.replace("&", "&amp;"))
            self._state = outside
            self._block(1)
        elif match["content"].strip() and tag in ("template", "noframes", "iframe"):
            self.found_hidden = True
            if self._reads_hidden:
                self._rest(match["content"])

    def _text(self, text: str) -> None:
        if "&" in text:
            text = unescape(text)
        state = self._state
        if not state.is_shown and not self._reads_hidden:
            self.found_hidden = self.found_hidden or not text.isspace()
            return
        if state.keeps_white_space or state.keeps_lines:
            self._kept_text(text)
            return
        text = _SPACE.sub(" ", text)
        core = text.strip(" ")
        if not core:
            self._space = self._space or bool(text)
            return
        self._space = self._space or text[0] == " "
        self._words(core)
        self._space = text[-1] == " "

    def _kept_text(self, text: str) -> None:
        rows = _NEW_LINE.split(text)
        if not self._parts and len(rows) > 1 and not rows[0].strip() and self._break:
            # The line break right after `<pre>` is not shown.
            del rows[0]
        for row, after in pairwise([*rows, None]):
            if row:
                if self._state.keeps_lines:
                    row = _SPACE.sub(" ", row)
                self._words(row)
            if after is not None:
                self._line_break()

    def _words(self, words: str) -> None:
        """Write words to the line, after what has to stand before them."""
        if not words:
            return
        self._take_break()
        parts = self._parts
        if not parts:
            self._line_state = self._state
            self._mark = self._pending_mark or self._state.mark
            self._pending_mark = Mark.NONE
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
        if not self._break:
            return
        self._end_line()
        if self._break == 2 and self.lines and self.lines[-1].text:
            if self._state.depth < self._line_state.depth:
                self._line_state = self._state
            self._append("")
        self._break = 0
        if self._is_fresh:
            self._cell_from = len(self.lines)

    def _block(self, wanted: int) -> None:
        if not self._is_fresh and wanted > self._break:
            self._break = wanted
        if wanted:
            self._space = False

    def _line_break(self) -> None:
        if not self._state.is_shown and not self._reads_hidden:
            return
        self._take_break()
        if self._parts:
            self._end_line()
        elif len(self.lines) < MOST_BLANK_LINES or any(
            line.text for line in self.lines[-MOST_BLANK_LINES:]
        ):
            self._line_state = self._state
            self._append("")
        self._space = False
        self._is_fresh = False

    def _end_line(self) -> None:
        if self._parts:
            text = "".join(self._parts).rstrip(" ")
            self._parts = []
            self._append(text)

    def _append(self, text: str) -> None:
        state = self._line_state
        mark = self._mark if text else state.mark
        self.lines.append(Line(text, state.depth, mark, state.bare, state.box))

    def _rest(self, html: str) -> None:
        """What stands between the tags, without their meaning but for the ends of lines."""
        html = _CELL_TAG.sub("\t", _LINE_TAG.sub("\n", html))
        text = _SPACE_IN_ROW.sub(" ", unescape(_TAG.sub("", html)))
        self._end_line()
        self._line_state = self._state
        for row in text.split("\n", MOST_TAGS):
            words = row.strip(" \t")
            if words:
                self._append(words)


def _has_no_end(match: "re.Match[str]") -> bool:
    if match.lastgroup == "content":
        return match.end("content") == match.end()
    return match[0].startswith("<!--") and not match[0].endswith(("-->", "--!>"))


def _is_said(address: str, shown: str) -> bool:
    """Whether the text of a link already says where it leads."""
    bare = re.sub(r"^(?:https?|ftp)://(?:www\.)?", "", address, flags=re.IGNORECASE).rstrip("/")
    return bare.lower() in shown.lower()


def _name_of_image(attributes: dict[str, str]) -> str:
    alt = _SPACE.sub(" ", unescape(attributes.get("alt", ""))).strip()
    source = unescape(attributes.get("src", "")).strip()
    if alt and not any(character.isalnum() for character in alt):
        # An emoji that its client sends as a picture.
        return alt
    names = [alt] if alt else []
    if source.lower().startswith("cid:") and source[4:] not in alt:
        names.append(source)
    return f"[{', '.join(names)}]" if names else ""


def lines_of_html(html: str) -> list[Line]:
    """The lines that a mail client shows of this HTML; the hidden ones if it shows none."""
    reader = HtmlReader(keeps_lines=_MAKES_LINES.search(html) is None)
    lines = reader.read(html)
    if reader.found_hidden and not any(line.text.strip() for line in lines):
        return HtmlReader(reads_hidden=True).read(html)
    return lines
