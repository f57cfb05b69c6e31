"""Letters as mail programs write them: as plain text, and as the HTML of five programs."""

from collections.abc import Callable, Sequence
from html import escape
from html.entities import codepoint2name

import attrs

Message = tuple[str, str]
"""An earlier message that a letter quotes: the line that says who wrote it when, and its text."""

_NAMED_ENTITIES = {char: f"&{codepoint2name[ord(char)]};" for char in "äöüÄÖÜß–„“€éø"}


def _with_named_entities(html: str) -> str:
    for character, entity in _NAMED_ENTITIES.items():
        html = html.replace(character, entity)
    return html


def _with_numeric_entities(html: str) -> str:
    return html.encode("ascii", "xmlcharrefreplace").decode("ascii")


@attrs.frozen
class Client:
    """The HTML that a mail program makes of a letter."""

    page: str
    """Has `@letter@` and may have `@id@`, which names an inline image."""

    paragraph: tuple[str, str]
    quote: tuple[str, str, str]
    """What comes before the line that names the sender, after it and after the quoted letter."""

    encode: Callable[[str], str] = str
    """Writes characters beyond ASCII as the program does."""

    def write(self, letter: str, quoted: Sequence[Message], image: str) -> str:
        """The letter as HTML, with what it quotes, latest first, and an inline image's id."""
        html = self.encode(self._with_quotes(letter, quoted))
        return self.page.replace("@letter@", html).replace("@id@", image)

    def _with_quotes(self, letter: str, quoted: Sequence[Message]) -> str:
        opening, closing = self.paragraph
        lines = escape(letter).replace("\n\n", "\0").replace("\n", "<br>")
        html = opening + lines.replace("\0", closing + opening) + closing
        if not quoted:
            return html
        (intro, text), *older = quoted
        before, between, after = self.quote
        return html + before + escape(intro) + between + self._with_quotes(text, older) + after


CLIENTS = (
    Client(  # Apple Mail
        '<html><head><meta http-equiv="content-type" content="text/html; charset=utf-8"></head>'
        '<body dir="auto">@letter@<div><img src="cid:@id@" alt="IMG_0815.jpeg" width="320"></div>'
        "</body></html>",
        ("<div>", "</div><div><br></div>"),
        ('<blockquote type="cite"><div dir="ltr">', "<br><br></div>", "</blockquote>"),
    ),
    Client(  # Outlook
        '<html xmlns:o="urn:schemas-microsoft-com:office:office"><head><style><!--\n'
        "@font-face {font-family:Calibri; panose-1:2 15 5 2 2 2 4 3 2 4;}\n"
        "p.MsoNormal, li.MsoNormal {margin:0cm; font-size:11.0pt; font-family:Calibri,sans-serif;}"
        '\n--></style></head><body lang="DE" link="#0563C1">'
        '<div class="WordSection1">@letter@</div></body></html>',
        ('<p class="MsoNormal">', '<o:p></o:p></p>\n<p class="MsoNormal"><o:p>&nbsp;</o:p></p>\n'),
        (
            '<div style="border:none;border-top:solid #E1E1E1 1.0pt"><p class="MsoNormal"><b>',
            "</b></p></div><blockquote>",
            "</blockquote>",
        ),
        encode=_with_named_entities,
    ),
    Client(  # Gmail
        '<div dir="ltr">@letter@</div>',
        ("<div>", "</div><div><br></div>"),
        (
            '<div class="gmail_quote"><div dir="ltr" class="gmail_attr">',
            '<br></div><blockquote class="gmail_quote" style="margin:0 0 0 .8ex">',
            "</blockquote></div>",
        ),
    ),
    Client(  # Thunderbird
        '<!DOCTYPE html>\n<html><head><meta charset="UTF-8"></head><body>@letter@'
        '<img alt="" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">'
        "</body></html>",
        ("<p>", "</p>\n"),
        ('<div class="moz-cite-prefix">', '<br></div><blockquote type="cite">', "</blockquote>"),
    ),
    Client(  # A company's mail system, which lays out with tables
        "<html><head><style>.outer{width:100%} .inner td{padding:8px; color:#333}</style>"
        "<script>window.opened = {id: '@id@', at: Date.now()};</script></head><body>"
        '<table class="outer" cellpadding="0"><tr><td align="center">'
        '<table class="inner" width="600"><tr><td><img src="https://img.firma.example/logo.png"'
        ' alt="Logo" height="40"></td></tr><tr><td>@letter@</td></tr></table></td></tr></table>'
        '<img src="https://img.firma.example/open/@id@.gif" width="1" height="1" alt="">'
        "</body></html>",
        ('<p style="margin:0 0 12px">', "</p>"),
        ("<hr><p><small>", "</small></p><blockquote>", "</blockquote>"),
        encode=_with_numeric_entities,
    ),
)


def as_text(letter: str, quoted: Sequence[Message]) -> str:
    """The letter as plain text, with what it quotes, latest first."""
    if not quoted:
        return letter
    (intro, text), *older = quoted
    return f"{letter}\n\n{intro}\n> " + as_text(text, older).replace("\n", "\n> ")
