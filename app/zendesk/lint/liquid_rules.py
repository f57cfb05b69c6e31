"""What is wrong with the Liquid of a template: names that Zendesk does not know, ends that are
missing."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from app.i18n.texts import gettext as _
from app.zendesk.lint.findings import Findings
from app.zendesk.lint.liquid_text import Kind, Token, paths_in, read_output
from app.zendesk.lint.placeholders import ATTACHMENT, COMMENT, holds, nearest, normal

# The tags and filters of Ruby's Liquid 5.4 (lib/liquid/tags, lib/liquid/standardfilters.rb), less
# those that ask for files, which a trigger has not.
BLOCKS = ("for", "if", "unless", "case", "capture", "comment", "raw", "tablerow", "ifchanged")
TAGS = frozenset(
    (
        *BLOCKS,
        *("else", "elsif", "when", "assign", "break", "continue", "cycle", "decrement", "echo"),
        *("increment", "#"),
    )
)
FILTERS = frozenset(
    (
        *("abs", "append", "at_least", "at_most", "base64_decode", "base64_encode"),
        *("base64_url_safe_decode", "base64_url_safe_encode", "capitalize", "ceil", "compact"),
        *("concat", "date", "default", "divided_by", "downcase", "escape", "escape_once"),
        *("first", "floor", "h", "join", "last", "lstrip", "map", "minus", "modulo"),
        *("newline_to_br", "plus", "prepend", "remove", "remove_first", "remove_last", "replace"),
        *("replace_first", "replace_last", "reverse", "round", "rstrip", "size", "slice", "sort"),
        *("sort_natural", "split", "strip", "strip_html", "strip_newlines", "times", "truncate"),
        *("truncatewords", "uniq", "upcase", "url_decode", "url_encode", "where"),
    )
)
_LOOP = re.compile(r"(?P<name>[\w-]+)\s+in\s+(?P<of>.+)", re.DOTALL)
_NAMED = re.compile(r"(?P<name>[\w-]+)")
# What is written for a placeholder by those who know other languages.
_NOT_LIQUID = re.compile(
    r"(?<![{%$])(?:\$?\{|<<|\[\[|<%=|%)\s*"
    r"(?P<path>(?:ticket|current_user)\.[A-Za-z_][\w.]*)\s*(?:\}|>>|\]\]|%>|%)(?!\})"
)


def look_at_liquid(text: str, found: Sequence[Token], findings: Findings) -> None:
    """Note what is wrong with outputs and tags."""
    _look_at_ends(found, findings)
    names = _Names()
    for token in found:
        if token.kind is Kind.OUTPUT:
            _look_at_output(token, names, findings)
        elif token.kind is Kind.TAG:
            _look_at_tag(token, names, findings)
    for match in _NOT_LIQUID.finditer(text):
        findings.add(
            match.start(),
            "not-liquid",
            _("%(text)s is no placeholder: Zendesk sends it as it stands", text=match.group()),
            f"{{{{{match['path']}}}}}",
        )


class _Names:
    """What a template names itself."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {"forloop": None}

    def loop(self, name: str, of: str) -> None:
        path = self.resolve(of)
        if path is not None and path.endswith(".attachments"):
            self._known[name] = "an attachment"
        elif path in ("ticket.comments", "ticket.public_comments"):
            self._known[name] = "a comment"
        else:
            self._known[name] = None

    def add(self, name: str) -> None:
        self._known[name] = None

    def knows(self, path: str) -> bool:
        root, _dot, rest = path.partition(".")
        if root not in self._known:
            return holds(path) is not None
        fields = {"an attachment": ATTACHMENT, "a comment": COMMENT}.get(self._known[root] or "")
        return fields is None or not rest or rest in fields or rest.startswith("author.")

    def nearest(self, path: str) -> str | None:
        root, _dot, rest = path.partition(".")
        fields = {"an attachment": ATTACHMENT, "a comment": COMMENT}.get(
            self._known.get(root) or ""
        )
        if fields is None:
            return nearest(path)
        meant = {"name": "filename", "file_name": "filename", "content_url": "url"}.get(rest)
        close = [meant] if meant in fields else get_close_matches(rest, fields, n=1)
        return f"{root}.{close[0]}" if close else f"{root}.{next(iter(fields))}"

    def resolve(self, of: str) -> str | None:
        paths = paths_in(of)
        return normal(paths[0]) if paths else None


def _look_at_output(token: Token, names: _Names, findings: Findings) -> None:
    if not token.inner:
        findings.add(token.start, "empty-output", _("there is nothing between the braces"))
        return
    output = read_output(token.inner)
    if output.path is not None:
        _look_at_path(token, output.path, names, findings)
    elif not output.first.startswith(("'", '"')) and not output.first.replace(".", "").isdigit():
        bare, written = output.first.strip("{} "), f"{{{{{output.first[:80]}}}}}"
        known = bare if holds(bare) is not None else nearest(bare)
        findings.add(
            token.start,
            "no-placeholder",
            _("%(text)s is no placeholder", text=written),
            f"{{{{{known}}}}}" if known else None,
        )
    for name, _argument in output.filters:
        if name in FILTERS:
            continue
        right: str | None
        if name in ("json", "jsonify", "to_json", "jsonescape", "escape_json", "escapejs"):
            right = f"{{{{{output.first} | url_encode}}}}"
            more = _("; what it is meant to do, url_encode does")
        else:
            close = get_close_matches(name, FILTERS, n=1)
            right, more = (close[0], "") if close else (None, "")
        findings.add(
            token.start,
            "unknown-filter",
            _(
                "Zendesk's Liquid has no filter %(name)s, and passes the text on unchanged",
                name=repr(name[:60]),
            )
            + more,
            right,
        )


def _look_at_path(token: Token, path: str, names: _Names, findings: Findings) -> None:
    if names.knows(normal(path)):
        return
    close = names.nearest(path)
    said = (
        _("names are case sensitive")
        if close and close == path.lower()
        else _("it comes out empty")
    )
    findings.add(
        token.start,
        "unknown-placeholder",
        _("Zendesk knows no placeholder %(path)s: %(why)s", path=path[:100], why=said),
        f"{{{{{close}}}}}" if close else None,
    )


def _look_at_tag(token: Token, names: _Names, findings: Findings) -> None:
    name = token.name
    if name not in TAGS and not (name.startswith("end") and name[3:] in BLOCKS):
        close = get_close_matches(name, [*TAGS, *(f"end{block}" for block in BLOCKS)], n=1)
        findings.add(
            token.start,
            "unknown-tag",
            _("Liquid knows no tag %(name)s, and Zendesk sends nothing then", name=repr(name[:60])),
            f"{{% {close[0]} %}}" if close else None,
        )
        return
    if name == "for":
        loop = _LOOP.match(token.rest)
        if loop is None:
            findings.add(
                token.start, "no-loop", _("a loop is written %(loop)s", loop="{% for x in list %}")
            )
            return
        if "(" not in loop["of"]:
            for path in paths_in(loop["of"])[:1]:
                _look_at_path(token, path, names, findings)
        names.loop(loop["name"], loop["of"])
    elif name in ("assign", "capture", "increment", "decrement"):
        named = _NAMED.match(token.rest)
        if named is not None:
            names.add(named["name"])
    elif name in ("if", "unless", "elsif", "case"):
        for path in paths_in(token.rest):
            _look_at_path(token, path, names, findings)


def _look_at_ends(found: Sequence[Token], findings: Findings) -> None:
    """Whether whatever begins ends, and the other way round."""
    is_open: list[Token] = []
    for token in found:
        if token.kind is Kind.UNCLOSED:
            is_tag = token.inner.startswith("%") or token.name in (
                *TAGS,
                *map("end{}".format, BLOCKS),
            )
            right = f"{{% {token.inner.strip('% ')} %}}" if is_tag else f"{{{{{token.inner}}}}}"
            findings.add(token.start, "unclosed-liquid", _("its closing braces are missing"), right)
        if token.kind is not Kind.TAG:
            continue
        if token.name in BLOCKS:
            is_open.append(token)
        elif token.name.startswith("end") and token.name[3:] in BLOCKS:
            if not is_open:
                findings.add(
                    token.start,
                    "end-too-many",
                    _("nothing is open that %(name)s ends", name=token.name),
                )
            elif is_open[-1].name == token.name[3:]:
                is_open.pop()
            else:
                findings.add(
                    token.start,
                    "wrong-end",
                    _(
                        "%(name)s stands where %(open)s is open since line %(line)s",
                        name=token.name,
                        open=is_open[-1].name,
                        line=findings.line_of(is_open[-1].start),
                    ),
                    f"{{% end{is_open[-1].name} %}}",
                )
                is_open.pop()
    for token in is_open:
        findings.add(
            token.start,
            "no-end",
            _("%(name)s has no end", name=token.name),
            f"{{% end{token.name} %}}",
        )
