"""What styles do to the words of an email: hide them, keep their white space, make lines of them.
No more of CSS is read: inline declarations, and rules for a tag, a class or an id."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_DECLARATION = re.compile(r"(?<![a-z-])([a-z-]++)\s*+:\s*+([^;{}]{0,200})")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|<!--|-->", re.DOTALL)
_SELECTOR = re.compile(r"(?:[a-z][a-z0-9]*)?(?:[.#][\w-]+)?")
_ZERO = re.compile(r"[+-]?0*\.?0*(?:px|pt|em|rem|ex|ch|%|cm|mm|in|vh|vw)?")
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+")
_TINY_FONT = re.compile(r"(?:0*\.[0-9]+|0+|1(?:\.[0-9]+)?)(?:px|pt)")
_FAR_AWAY = re.compile(r"-[0-9]{4,}")

# A style sheet is read as far as this; those of newsletters have 20 to 80 KB.
LONGEST_SHEET = 200_000

_BLOCKS = frozenset({"block", "flex", "grid", "table", "list-item", "table-row", "flow-root"})
_KEEPS_WHITE_SPACE = frozenset({"pre", "pre-wrap", "break-spaces"})


class Style(NamedTuple):
    """What a style says; None is nothing.

    Attributes:
        hidden: neither it nor anything in it is shown.
        invisible: the same until something in it says otherwise (`visibility`).
        font_is_zero: likewise, by the size of its letters.
        keeps_white_space: its line breaks and spaces are shown as they are.
        keeps_lines: its line breaks are.
        block: it stands on lines of its own.
        has_margin: there is space above it.
    """

    hidden: bool = False
    invisible: bool | None = None
    font_is_zero: bool | None = None
    keeps_white_space: bool | None = None
    keeps_lines: bool | None = None
    block: bool | None = None
    has_margin: bool | None = None

    def over(self, other: "Style") -> "Style":
        """This style, and what the other says where this one is silent."""
        return Style(
            self.hidden or (other.hidden and self.block is None),
            *(b if a is None else a for a, b in zip(self[1:], other[1:], strict=True)),
        )


NOTHING = Style()


def read_declarations(text: str) -> Style:
    """Read declarations such as `display:none; margin:0`."""
    found = {
        name: value.replace("!important", "").strip()
        for name, value in _DECLARATION.findall(text.lower())
    }
    if not found:
        return NOTHING
    display = found.get("display", "")
    white_space = found.get("white-space", "")
    return Style(
        hidden=_hides(found, display),
        invisible=_either(found.get("visibility"), {"hidden", "collapse"}, {"visible"}),
        font_is_zero=_font_is_zero(found),
        keeps_white_space=white_space in _KEEPS_WHITE_SPACE if white_space else None,
        keeps_lines=white_space == "pre-line" if white_space else None,
        block=_block(display),
        has_margin=_has_margin(found),
    )


def _hides(found: dict[str, str], display: str) -> bool:
    clipped = any(found.get(name, "").startswith("hidden") for name in ("overflow", "overflow-y"))
    moved = found.get("position", "").startswith(("absolute", "fixed"))
    sizes = ("height", "max-height", "width", "max-width")
    places = ("left", "top", "text-indent") if moved else ("text-indent",)
    return (
        display == "none"
        or found.get("mso-hide") == "all"
        or _is_zero(found.get("opacity"))
        or (clipped and any(_is_zero(found.get(name)) for name in sizes))
        or found.get("color") == "transparent"
        or any(_FAR_AWAY.match(found.get(name, "")) for name in places)
        or found.get("clip", "").replace(" ", "").startswith(("rect(0,0,0,0", "rect(0000"))
    )


def _is_zero(value: str | None) -> bool:
    return bool(value) and _ZERO.fullmatch(value or "") is not None


def _font_is_zero(found: dict[str, str]) -> bool | None:
    size = found.get("font-size") or next(
        (
            word
            for word in found.get("font", "").split()
            if _NUMBER.match(word) and word[-1:] in "xtm%"
        ),
        None,
    )
    if not size:
        return None
    return _is_zero(size) or _TINY_FONT.fullmatch(size) is not None


def _either(value: str | None, yes: set[str], no: set[str]) -> bool | None:
    if value in yes:
        return True
    return False if value in no else None


def _block(display: str) -> bool | None:
    if display in _BLOCKS:
        return True
    return False if display.startswith("inline") or display == "contents" else None


def _has_margin(found: dict[str, str]) -> bool | None:
    top = found.get("margin-top")
    margin = found.get("margin", "").split()
    value = top or (margin[0] if margin else None)
    if value is None or value.startswith("auto"):
        return None
    number = _NUMBER.match(value)
    # Less than that is no blank line to the eye.
    return number is not None and float(number[0]) > (4 if value.endswith(("px", "pt")) else 0.4)


class Sheet:
    """The rules of all style sheets of an email."""

    def __init__(self) -> None:
        self._rules: dict[str, Style] = {}
        self._read = 0

    @property
    def has_rules(self) -> bool:
        """Whether there is anything to look up."""
        return bool(self._rules)

    def add(self, text: str) -> None:
        """Take in the rules of one sheet. What holds for some media alone is passed over."""
        text = text[: LONGEST_SHEET - self._read]
        self._read += len(text)
        for rule in _without_media(_COMMENT.sub("", text)).split("}"):
            selectors, _, declarations = rule.partition("{")
            style = read_declarations(declarations)
            if style == NOTHING or len(selectors) > 2_000:
                continue
            for selector in selectors.lower().split(","):
                name = selector.strip(" ;\t\r\n")
                if name and _SELECTOR.fullmatch(name):
                    self._rules[name] = style.over(self._rules.get(name, NOTHING))

    def style_of(self, tag: str, classes: Iterable[str], element_id: str) -> Style:
        """What the rules say of an element; a class counts for more than a tag."""
        style = NOTHING
        rules = self._rules
        if not rules:
            return style
        names = [tag]
        for name in classes:
            names += [f".{name}", f"{tag}.{name}"]
        if element_id:
            names += [f"#{element_id}", f"{tag}#{element_id}"]
        for name in names:
            rule = rules.get(name)
            if rule is not None:
                style = rule.over(style)
        return style


def _without_media(text: str) -> str:
    """Leave out `@media ... { ... }` and its like, which hold rules themselves."""
    if "@" not in text:
        return text
    kept = []
    depth = start = 0
    is_skipping = False
    for match in re.finditer(r"@[a-z-]+[^{};]*+|[{}]", text):
        found = match[0]
        if found == "{":
            depth += 1
        elif found == "}":
            depth = max(depth - 1, 0)
            if is_skipping and depth == 0:
                start, is_skipping = match.end(), False
        elif depth == 0 and not is_skipping:
            kept.append(text[start : match.start()])
            start = match.end()
            is_skipping = text[match.end() : match.end() + 1] == "{"
    if not is_skipping:
        kept.append(text[start:])
    return "".join(kept)
