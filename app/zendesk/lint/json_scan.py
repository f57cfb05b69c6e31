"""Reads JSON that has Liquid in it, and goes on after a mistake.

What it finds wrong it names with its place. Where a tag stands between two things, whether a comma
is right depends on what Liquid makes of it: that is seen when the template is rendered.
"""

import re
from collections.abc import Iterable

from app.i18n.texts import gettext as _
from app.zendesk.lint.findings import Findings
from app.zendesk.lint.json_values import Member, Value
from app.zendesk.lint.liquid_text import Kind, Token
from app.zendesk.lint.loops import Loops

DEEPEST = 50

_SCALAR = re.compile(r"(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.+-])")
_BARE = re.compile(r"[^\s,:{}\[\]\"]+")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})')
_ENDS_A_LINE = re.compile(r"[ \t]*,?[ \t]*\r?$")
_NEXT_LINE = re.compile(r"\s*(?:\"[\w-]{1,60}\"?\s*:|[}\]]|\Z)")
_CURLY = "\u201c\u201d\u201e\u00ab\u00bb"
# What needs no look within a text.
_PLAIN = re.compile(rf"[^\"'\\\n{{{_CURLY}]*+")
_SPACES = " \t\r\n\ufeff\u00a0"


class Scanner:
    """Reads one text."""

    def __init__(self, text: str, found: Iterable[Token], findings: Findings) -> None:
        self._text = text
        self._liquid = {token.start: token for token in found}
        self._findings = findings
        self._at = 0
        self._loops = Loops(findings)
        self._passed_tag = False
        self._depth = 0

    def scan(self) -> Value:
        """The value that the text is."""
        self._skip()
        if self._at == len(self._text):
            self._wrong(0, "blank", _("there is nothing: the trigger needs a JSON body"))
            return Value("none", 0, 0)
        value = self._value()
        self._skip()
        if self._at < len(self._text):
            if self._text[self._at] in "}]":
                self._wrong(self._at, "bracket-too-many", _("it closes what was never opened"), "")
            else:
                self._wrong(self._at, "text-behind", _("nothing may stand behind the object"))
        elif value.kind != "object":
            self._wrong(value.start, "no-object", _("the body has to be one JSON object {...}"))
        return value

    def _value(self) -> Value:
        start = self._at
        token = self._liquid.get(start)
        mark = self._text[start] if start < len(self._text) else ""
        if token is None and mark in "{[":
            if self._depth >= DEEPEST:
                self._wrong(start, "too-deep", _("it is nested too deep for any template"))
                self._at = len(self._text)
                return Value("none", start, self._at)
            self._depth += 1
            value = self._object() if mark == "{" else self._array()
            self._depth -= 1
            return value
        if mark == '"':
            return self._string('"')
        if mark in _CURLY and mark:
            self._wrong(
                start,
                "curly-quotes",
                _('JSON knows no %(mark)s: the quotes have to be straight "', mark=mark),
            )
            return self._string(_CURLY + '"')
        if mark == "'":
            self._wrong(start, "single-quotes", _("JSON knows no ': the quotes have to be \""))
            return self._string("'")
        if mark in ",:}]" or not mark:
            self._wrong(start, "missing-value", _("a value is missing here"), '""')
            return Value("none", start, start)
        scalar = _SCALAR.match(self._text, start)
        if scalar is not None and scalar.end() not in self._liquid:
            self._at = scalar.end()
            return Value("bare", start, self._at)
        return self._bare(start)

    def _bare(self, start: int) -> Value:
        """What has no quotes, up to the end of its value."""
        value = Value("bare", start, start)
        while self._at < len(self._text) and self._text[self._at] not in ",}]\n":
            token = self._liquid.get(self._at)
            if token is not None:
                value.liquid.append(token)
                self._at = token.end
            else:
                self._at += 1
        value.end = start + len(self._text[start : self._at].rstrip())
        raw = self._text[start : value.end]
        inner = raw.strip('"')
        if not value.liquid or raw != inner or len(value.liquid) > 1 or self._is_mixed(value):
            self._wrong(
                start, "missing-quotes", _("text has to stand in quotes"), f'"{inner[:200]}"'
            )
        return value

    def _is_mixed(self, value: Value) -> bool:
        return value.liquid[0].start != value.start or value.liquid[0].end != value.end

    def _string(self, closing: str) -> Value:
        """A text in quotes, from the quote at which it begins."""
        value = Value("string", self._at, self._at)
        self._at += 1
        while self._at < len(self._text):
            mark = self._text[self._at]
            token = self._liquid.get(self._at)
            if token is not None:
                value.liquid.append(token)
                self._at = token.end
            elif mark in closing:
                self._at += 1
                value.end = self._at
                return value
            elif mark == "\\":
                if _ESCAPE.match(self._text, self._at) is None:
                    self._wrong(
                        self._at, "bad-escape", _("a backslash that escapes nothing"), "\\\\"
                    )
                self._at += 2
            elif mark == "\n" and self._is_left_open(value.start):
                break
            else:
                plain = _PLAIN.match(self._text, self._at + 1)
                self._at = plain.end() if plain else self._at + 1
        self._at = min(self._at, len(self._text))
        value.end = self._at
        line = self._text[value.start : value.end].rstrip().rstrip(",")
        self._wrong(value.start, "missing-quote", _("the quote at its end is missing"), f'{line}"')
        self._at = value.end = value.start + len(line)
        return value

    def _is_left_open(self, start: int) -> bool:
        """Whether a text reaches over its line because its quote was forgotten."""
        line = self._text[start : self._at]
        return _NEXT_LINE.match(self._text, self._at) is not None and (
            line.rstrip().endswith((",", "}}")) or _ENDS_A_LINE.search(line) is not None
        )

    def _object(self) -> Value:
        value = Value("object", self._at, self._at)
        names: dict[str, int] = {}
        self._at += 1
        while not self._closes(value, "}"):
            member = self._member()
            if member.name in names and not self._loops.is_inside:
                self._wrong(
                    member.start,
                    "twice",
                    _("%(name)s comes twice: one of the two counts", name=member.name),
                )
            names[member.name] = member.start
            value.members.append(member)
            self._comma(value, member.value, "}")
        return value

    def _array(self) -> Value:
        value = Value("array", self._at, self._at)
        self._at += 1
        while not self._closes(value, "]"):
            item = self._value()
            if self._at == item.start:
                self._at += 1
            self._loops.see_item()
            value.items.append(item)
            self._comma(value, item, "]")
        return value

    def _member(self) -> Member:
        start = self._at
        if self._text[start] in "\"'" + _CURLY:
            name_value = self._value()
            name = self._text[start + 1 : name_value.end - 1]
        else:
            bare = _BARE.match(self._text, start)
            self._at = bare.end() if bare else start + 1
            name = self._text[start : self._at]
            if self._text[self._at : self._at + 1] == '"':
                self._at += 1
            if start not in self._liquid:
                self._wrong(
                    start, "missing-quotes", _("the name has to stand in quotes"), f'"{name}"'
                )
        self._skip()
        if self._text[self._at : self._at + 1] == ":":
            self._at += 1
        elif ":" in name:
            self._wrong(
                start,
                "missing-quote",
                _("the quote behind the name is missing"),
                f'"{name.partition(":")[0].strip()}": ',
            )
            name = name.partition(":")[0].strip()
            # The quote that was taken for the name's begins its value.
            self._at -= self._text[self._at - 1] == '"'
        else:
            self._wrong(
                self._at,
                "missing-colon",
                _("a colon is missing behind %(name)s", name=name[:60]),
                ":",
            )
            self._at += self._text[self._at : self._at + 1] == "="
        self._skip()
        before = self._at
        value = self._value() if self._at < len(self._text) else Value("none", before, before)
        return Member(name, start, value)

    def _closes(self, value: Value, closing: str) -> bool:
        """Whether an object or array ends here."""
        self._skip()
        while self._text[self._at : self._at + 1] == ",":
            self._wrong(self._at, "comma-too-many", _("a comma too many"), "")
            self._at += 1
            self._skip()
        if self._at >= len(self._text):
            opening = self._text[value.start]
            self._wrong(
                value.start,
                "unclosed",
                _(
                    "%(opening)s is never closed: %(closing)s is missing",
                    opening=opening,
                    closing=closing,
                ),
                closing,
            )
            value.end = self._at
            return True
        if self._text[self._at] in "}]":
            if self._text[self._at] != closing:
                self._wrong(
                    self._at,
                    "wrong-bracket",
                    _("here %(closing)s is right", closing=closing),
                    closing,
                )
            self._at += 1
            value.end = self._at
            return True
        return False

    def _comma(self, value: Value, last: Value, closing: str) -> None:
        """What stands behind a member or an item."""
        self._passed_tag = False
        self._skip()
        mark = self._text[self._at : self._at + 1]
        if mark == ",":
            comma, passed = self._at, self._passed_tag
            self._loops.see_comma(comma, self._depth, is_in_array=closing == "]")
            self._at += 1
            self._passed_tag = False
            self._skip()
            is_last = self._text[self._at : self._at + 1] in ("}", "]")
            if is_last and not self._passed_tag and not passed:
                self._wrong(comma, "comma-too-many", _("no comma may stand behind the last"), "")
        elif mark and mark not in "}]" and not self._passed_tag:
            self._wrong(
                max(last.end - 1, 0), "missing-comma", _("a comma is missing behind this"), ","
            )

    def _skip(self) -> None:
        """Pass over spaces, tags and comments."""
        while self._at < len(self._text):
            token = self._liquid.get(self._at)
            mark = self._text[self._at]
            if token is not None and token.kind in (Kind.TAG, Kind.SKIPPED):
                self._passed_tag = True
                self._at = token.end
                if token.kind is Kind.TAG:
                    self._loops.see_tag(token, self._depth)
            elif mark in _SPACES:
                self._at += 1
            elif self._text.startswith(("//", "/*"), self._at):
                self._wrong(self._at, "comment", _("JSON knows no comments"), "")
                end = self._text.find("\n" if self._text[self._at + 1] == "/" else "*/", self._at)
                self._at = len(self._text) if end < 0 else end + 1 + (self._text[end] == "*")
            else:
                return

    def _wrong(self, offset: int, code: str, message: str, right: str | None = None) -> None:
        self._findings.add(offset, code, message, right)
