"""What an email says: from its body, HTML or plain, to the words of its writer and the rest."""

import re
from collections.abc import Iterable, Mapping
from html import unescape

import attrs

from app.text import characters, tokens
from app.text.html_lines import lines_of_html
from app.text.kinds import EmailKind, kind_of
from app.text.languages import language_of
from app.text.lines import LINE_ENDS, Line, lines_of_text
from app.text.parts import take_apart

# Characters that are read with all rules; more than any mail server lets pass as text.
MOST_CHARACTERS = 4_000_000
MOST_MENDED_LINES = 2_000
# Mail servers refuse lines of more than 998 characters (RFC 5322).
LONGEST_SUBJECT = 1_000

# Ends of lines in text, and nothing in HTML.
_NO_SPACE = re.compile("[\x0b\x1c-\x1e]")
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")


@attrs.frozen
class EmailText:
    """What an email says, and what it is.

    Attributes:
        cleaned_body: what its writer wrote; all that is there, if nothing else is.
        quoted: what it repeats of earlier emails, with the lines that introduce them.
        signature: what stands below the message, by markup, after `-- `, or added by a phone.
        forwarded: the email that it passes on.
        language: of what was written, a code of ISO 639-1; None if it cannot be told.
        kind: message, auto_reply, bounce or newsletter.
        confidence: how sure it is that the parts are right, from 0 to 1.
    """

    cleaned_body: str
    quoted: str
    signature: str
    forwarded: str
    language: str | None
    kind: EmailKind
    confidence: float

    def as_data(self) -> dict[str, str | float | None]:
        """All but the cleaned body, as it is stored in `extracted_data`."""
        data: dict[str, str | float | None] = attrs.asdict(
            self, filter=lambda field, _: field.name != "cleaned_body"
        )
        return {**data, "kind": self.kind.value}


def read_email_text(
    *,
    html: str | None = None,
    text: str | None = None,
    subject: str = "",
    sender: str = "",
    headers: Mapping[str, str] | None = None,
) -> EmailText:
    """Read the body of an email: the plain text, or else the HTML.

    It raises nothing, whatever the body is, and takes time linear in its size.

    Args:
        html: the HTML body; plain text in it is taken as it is.
        subject, sender, headers: where they are known; they tell the kind, and forwards.
    """
    subject = subject[:LONGEST_SUBJECT]
    source = text if text and text.strip() else html or ""
    source, rest = source[:MOST_CHARACTERS], source[MOST_CHARACTERS:]
    source = characters.visible(characters.repair(source))
    is_html = source is not text and not (text and text.strip()) and tokens.is_html(source)
    if is_html:
        source = _NO_SPACE.sub("", source)
        lines = [_as_read(line) for line in lines_of_html(source)]
    else:
        if not (text and text.strip()):
            source = _REFERENCE.sub(lambda match: unescape(match[0]), source)
        lines = lines_of_text(source)
    lines = _mended(lines)
    parts = take_apart(lines, subject=subject)
    whole = _joined(lines)
    written = _joined(parts.written)
    if not is_html and parts.is_whole and written == whole.strip("\n"):
        # Nothing to take away: as it was written, its ends of lines included.
        written = LINE_ENDS.sub("\n", source).strip() if whole != source else source.strip()
    written = written.strip() or whole.strip()
    if rest:
        written = f"{written}\n{rest.strip()}"
    fields = {name.lower(): str(value) for name, value in (headers or {}).items()}
    return EmailText(
        cleaned_body=written,
        quoted=_joined(parts.quoted).strip("\n"),
        signature=_joined(parts.signature).strip(),
        forwarded=_joined(parts.forwarded).strip("\n"),
        language=language_of(written),
        kind=kind_of(whole, subject=subject, sender=sender, headers=fields),
        confidence=parts.confidence,
    )


def _as_read(line: Line) -> Line:
    if line.text.isascii():
        return line
    return line._replace(text=characters.breaking_spaces(characters.visible(line.text)).rstrip())


def _mended(lines: list[Line]) -> list[Line]:
    left = MOST_MENDED_LINES
    for index, line in enumerate(lines):
        if not left:
            break
        if line.text.isascii() or not characters.is_perhaps_mojibake(line.text):
            continue
        left -= 1
        text = characters.mend(line.text)
        if text != line.text:
            raw = None if line.raw is None else characters.mend(line.raw)
            lines[index] = line._replace(text=text, raw=raw)
    return lines


def _joined(lines: Iterable[Line]) -> str:
    return "\n".join(line.shown() for line in lines)
