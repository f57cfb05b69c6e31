"""HTML is read as a mail client shows it: its words, its lines, and nothing that is hidden."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.text.email_text import read_email_text


def read(html: str) -> str:
    return read_email_text(html=html).cleaned_body


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        # A page of a gateway before the message, a notice behind it.
        (
            "<html><body><div>External email</div></body></html>\n<!DOCTYPE html><html><head>"
            "<title>x</title></head><body><p>The lamp flickers.</p></body></html>",
            "External email\n\nThe lamp flickers.",
        ),
        ("<html><body>One</body></html><div>Two</div>", "One\nTwo"),
        # Lines as they are.
        ("<pre>a\n\n  b\n    c</pre>", "a\n\n  b\n    c"),
        ('<p style="white-space: pre-line">a  a\nb</p>', "a a\nb"),
        ("<div>a</div><div><br/></div><div>b</div>", "a\n\nb"),
        ("a<br>b<br><br>c", "a\nb\n\nc"),
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ('<p class="MsoNormal">a</p><p class="MsoNormal">b</p>', "a\nb"),
        ('<p style="margin:0">a</p><p style="margin:0">b</p>', "a\nb"),
        ("<style>p{margin:0 0 0 0}</style><p>a</p><p>b</p>", "a\nb"),
        ('<span style="display:block">a</span><span style="display:block">b</span>', "a\nb"),
        ("<p>a\n  b\t c</p>", "a b c"),
        # Words as they are.
        ("<b>W</b>ord<i>s</i> a<wbr>nd 1<sup>st</sup>", "Words and 1st"),
        ("<b>a</b> <i>b</i><u> c</u>", "a b c"),
        ("<p>a&nbsp;b</p>", "a b"),
        ("x<!-- hidden -->y", "xy"),
        # Tables, lists, links, images.
        ("<table><tr><td>Size</td><td>9</td></tr><tr><td>Sum</td><td>5</td></tr></table>",
         "Size\t9\nSum\t5"),
        ("<table><tr><td><p>Size</p></td><td><p>9</p></td></tr></table>", "Size\t9"),
        (
            "<table><tr><td>a</td><td></td></tr><tr><td></td><td>5</td></tr></table>b",
            "a\n5\nb",
        ),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", "- a\n- b\n  - c"),
        ("<ol start=3><li>a</li><li><p>b</p></li></ol>", "3. a\n4. b"),
        ('<a href="https://example.org/x">this</a>', "this <https://example.org/x>"),
        ('<a href="https://example.org/">example.org</a>', "example.org"),
        ('<a href="mailto:kim@example.org">Kim</a>', "Kim <kim@example.org>"),
        ('<p>a</p><p><a href="https://example.org/x">b</a></p>', "a\n\nb <https://example.org/x>"),
        ('<a href="https://example.org/x"><div>b</div></a>c', "b <https://example.org/x>\nc"),
        ('<a href="javascript:alert(1)">x</a>', "x"),
        ('<img src="cid:a1@x" alt="lamp">', "[lamp, cid:a1@x]"),
        ('<p>See <img src="cid:a1@x"></p>', "See [cid:a1@x]"),
        ('<p>Fine <img src="https://example.org/e.png" alt="👍"></p>', "Fine 👍"),
        ('<p>Text<img src="https://example.org/pixel" width=1></p>', "Text"),
        # Hidden.
        ('<div style="display : NONE">x</div>y', "y"),
        ('<style>.pre{display:none!important}</style><p class="pre">x</p><p>y</p>', "y"),
        ("<style>@media (max-width:9px){.m{display:none}}</style><p class=m>y</p>", "y"),
        ('<div style="font-size:0">x<span style="font-size:12px">y</span></div>', "y"),
        ('<div style="max-height:0;overflow:hidden">x</div>y', "y"),
        ('<div style="visibility:hidden">x<b style="visibility:visible">y</b></div>', "y"),
        ('<p hidden>x</p><p data-hidden="no">y</p>', "y"),
        ('<span style="mso-hide:all">x</span>y', "y"),
        ("<script>x</script><title>x</title><template>x</template>y", "y"),
        ("<!--[if mso]>x<![endif]--><!--[if !mso]><!-->y<!--<![endif]-->", "y"),
        # Nothing else is there: rather the hidden text than none.
        ('<div style="display:none">only this</div>', "only this"),
        ("<style>p{color:red}<p>swallowed</p>", "p{color:red}swallowed"),
        # Not closed, not nested, not escaped.
        ("<p>a<p>b", "a\n\nb"),
        ("<div>a</span></div></p>b", "a\n\nb"),
        ("<p>1 < 2 and 3 > 2</p>", "1 < 2 and 3 > 2"),
        ("<p>mail <kim@example.org> now</p>", "mail <kim@example.org> now"),
        ("<p title='a > b'>c</p>", "c"),
        # No HTML.
        ("Dear team,\n\n  <jo@example.org> wrote <https://example.org>\na < b > c",
         "Dear team,\n\n  <jo@example.org> wrote <https://example.org>\na < b > c"),
        ("I pressed <b> and it broke\nsecond line", "I pressed <b> and it broke\nsecond line"),
        ("one\ntwo <b>bold</b>\nthree", "one\ntwo bold\nthree"),
        ("Sch&ouml;n &lt;3", "Schön <3"),
        # Characters.
        ("<p>It\x92s \x84so\x93 \x96 5 \x80</p>", "It’s „so“ – 5 €"),
        ("<p>\u202eevil\u202c a\u200bb\u00adc\ufeff</p>", "evil abc"),
        ("<p>👩‍👩‍👧 می‌خواهم</p>", "👩‍👩‍👧 می‌خواهم"),
        ("<p>GrÃ¼ÃŸe aus KÃ¶ln</p>", "Grüße aus Köln"),
        ("<p>Âge d’or, São João</p>", "Âge d’or, São João"),
    ],
)  # fmt: skip
def test_words_and_lines_are_as_a_mail_client_shows_them(html: str, shown: str) -> None:
    assert read(html) == shown


UNITS = [
    *("<div>", "<b>", "<a ", "<a href=x>", "<p>", "<table><tr><td>", "<font><p>", "<b><div>"),
    *("<b>x</i>", "<ul><li>", "&amp;", "&a", "<p a='1' ", '<a b="', "<a b='\"", "<", "<!--"),
    *("<?", "<style>", "<style>a{b:c}</style>", "<style>@media x{", "<script ", "<br>x", "<td>x"),
    *("</div>", "<p style='a:b;display:none'>x", "<p class='a b c'>x", "<blockquote>", "<pre>\n"),
    *("<textarea>", "<a<", "='", "<td><b></td>", "\n", "> ", "On 5 May 2026 x wrote:\n"),
    *("From: x\n", "> a 2026\nb\n", "---- a\n", "<a@b.c>\n", "Sent from my iPhone\n", "a@"),
]  # fmt: skip


def seconds_for(unit: str, size: int) -> float:
    body = unit * (size // len(unit))
    start = time.process_time()
    read_email_text(html=f"<p>x</p>{body}")
    read_email_text(text=body)
    return time.process_time() - start


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_repeated_without_end_takes_time_in_proportion(unit: str) -> None:
    # Five times as much takes five times as long; what is quadratic takes 25 times.
    small = min(seconds_for(unit, 20_000) for _ in range(2))
    assert seconds_for(unit, 100_000) < 12 * small + 0.2


HTML = st.lists(
    st.sampled_from(
        [
            *("<p>", "</p>", "<div style='display:none'>", "</div>", "<td>", "<tr>", "<table>"),
            *("</table>", "<pre>", "</pre>", "<!--", "-->", "<blockquote type=cite>", "<hr>"),
            *("</blockquote>", "<a href='https://example.org'>", "</a>", "<style>", "</style>"),
            *("\n", " ", "&nbsp;", "&", "<", ">", "-- ", "On 5 May 2026 Kim <k@e.org> wrote:"),
            *("> ", "From: a@b.org", "\nSent: 5 May 2026 10:00", "\nSubject: x", "Hello", "\x92"),
            *("<div class=gmail_quote>", "<div id=divRplyFwdMsg>", "Sent from my iPhone"),
        ]
    )
    | st.text(max_size=6),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(body=HTML, is_html=st.booleans())
def test_nothing_is_lost_or_made_up_whatever_comes(body: str, is_html: bool) -> None:
    read = read_email_text(html=body) if is_html else read_email_text(text=body)
    assert read.cleaned_body == read.cleaned_body.strip()
    is_usual = body.isascii() and body.replace("\n", "").isprintable()
    if not is_html and is_usual and any(character.isalnum() for character in body):
        assert read.cleaned_body
        # Each word is in one of the parts.
        parts = [read.cleaned_body, read.quoted, read.signature, read.forwarded]
        assert set("".join(body.replace(">", " ")).split()) - {"-"} <= set(
            " ".join(parts).replace(">", " ").split()
        )


@settings(max_examples=100, deadline=None)
@given(body=HTML)
def test_what_was_read_is_read_again_as_it_is(body: str) -> None:
    once = read_email_text(text=body)
    if once.confidence == 1.0 and not once.signature:
        assert read_email_text(text=once.cleaned_body).cleaned_body == once.cleaned_body
