"""What the start tags of HTML say: their attributes, their style, and what mail clients mean by
them; the names of pictures and the addresses of links."""

import re

from app.text import tokens
from app.text.characters import unescaped
from app.text.markup import NO_MEANING, Meaning, meaning_of
from app.text.styles import NOTHING, Sheet, Style, read_declarations

# Different styles that are read; emails of people have a tenth of it.
MOST_STYLES = 5_000
MOST_CLASSES = 20

_SPACE = re.compile(r"[ \t\n\r\f]+")
_BARE_QUOTE = Meaning(is_bare_quote=True)


class ElementReader:
    """Reads start tags; most of an email say what another one has said."""

    def __init__(self) -> None:
        self._sheet = Sheet()
        self._seen: dict[tuple[str, str], tuple[dict[str, str], Style, Meaning]] = {}
        self._styles = 0

    def add_sheet(self, text: str) -> None:
        """Take in a style sheet."""
        self._sheet.add(text)
        self._seen.clear()

    def look_at(self, tag: str, text: str) -> tuple[dict[str, str], Style, Meaning]:
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
            style = read_declarations(unescaped(attributes["style"])).over(style)
        if "hidden" in attributes:
            style = style._replace(hidden=True)
        if tag == "p" and style.has_margin is None and any("mso" in name for name in classes):
            # Outlook's own style sheet says so; its blank lines are paragraphs of their own.
            style = style._replace(has_margin=False)
        if tag == "font" and attributes.get("size"):
            style = style._replace(font_is_zero=False)
        return style, meaning_of(tag, [*classes, element_id], attributes)


def is_said(address: str, shown: str) -> bool:
    """Whether the text of a link already says where it leads."""
    bare = re.sub(r"^(?:https?|ftp)://(?:www\.)?", "", address, flags=re.IGNORECASE).rstrip("/")
    return bare.lower() in shown.lower()


def name_of_image(attributes: dict[str, str]) -> str:
    """What stands for a picture: its text in its stead, and the part of the email it is."""
    alt = _SPACE.sub(" ", unescaped(attributes.get("alt", ""))).strip()
    source = unescaped(attributes.get("src", "")).strip()
    if alt and not any(character.isalnum() for character in alt):
        # An emoji that its client sends as a picture.
        return alt
    names = [alt] if alt else []
    if source.lower().startswith("cid:") and source[4:] not in alt:
        names.append(source)
    return f"[{', '.join(names)}]" if names else ""
