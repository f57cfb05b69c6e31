"""The loops of a template, and whether commas stand between what they write, and nowhere else."""

import attrs

from app.i18n.texts import gettext as _
from app.zendesk.lint.findings import Findings
from app.zendesk.lint.liquid_text import Token

GUARD = "{% unless forloop.last %},{% endunless %}"


@attrs.define
class _Tag:
    token: Token
    depth: int
    items: int = 0
    has_comma: bool = False


class Loops:
    """Follows the tags that are open while JSON is read."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._open: list[_Tag] = []

    @property
    def is_inside(self) -> bool:
        """Whether a tag is open."""
        return bool(self._open)

    def see_tag(self, token: Token, depth: int) -> None:
        """Note a tag between two values, and in how many objects and arrays it stands."""
        if token.name in ("for", "if", "unless", "case"):
            self._open.append(_Tag(token, depth))
        elif token.name.startswith("end") and self._open:
            tag = self._open.pop()
            if tag.token.name != "for":
                if self._open:
                    self._open[-1].items += tag.items
            elif tag.items and not tag.has_comma:
                self._findings.add(
                    token.start,
                    "forloop-guard",
                    _("nothing stands between one and the next, which breaks the JSON"),
                    GUARD,
                )

    def see_item(self) -> None:
        """Note an item of an array."""
        if self._open:
            self._open[-1].items += 1

    def see_comma(self, comma: int, depth: int, *, is_in_array: bool) -> None:
        """Note a comma: which loop it belongs to, and whether it stays away behind the last."""
        conditions = []
        for tag in reversed(self._open):
            if tag.depth != depth:
                return
            if tag.token.name != "for":
                conditions.append(tag.token.rest)
                continue
            tag.has_comma = True
            if is_in_array and not any("forloop" in condition for condition in conditions):
                self._findings.add(
                    comma,
                    "forloop-guard",
                    _("this comma comes behind the last one, too, and breaks the JSON"),
                    GUARD,
                )
            return
