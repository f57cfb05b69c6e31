"""What strangers may write without end is read in time linear in its length.

What is quadratic does not end within the time that each test has; the bounds are of CPU time and
far above what is needed, so that no slow machine fails them.
"""

import time
from collections.abc import Callable

import pytest

from app.intake.attachments import LONGEST_TEXT, LONGEST_TEXTS, read_attachments
from app.intake.json_body import UnreadableBodyError, read_json_object
from app.text.email_text import read_email_text
from app.text.tokens import is_html

REPLY = "On 5 May 2026 Kim <kim@example.org> wrote:\n> a\n>\n{} x\n> b"


def seconds_for(read: Callable[[], object]) -> float:
    began = time.process_time()
    read()
    return time.process_time() - began


@pytest.mark.parametrize(
    "html",
    [
        f"<style>x{{{'a' * 200_000}}}</style><p>b",
        f"<p style='{'a' * 16_000}'>b" * 20,
        "<style>" + "</style " * 40_000,
        "".join(f"<p style='border:{'border:' * 1_700}{number}'>b" for number in range(80)),
        "".join(f"<blockquote style='{'border-left:' * 1_000}{n}'>b" for n in range(80)),
        "<a href='https://example.org'>" * 900 + "a" * 400_000 + "</a>" * 900,
    ],
    ids=["sheet", "style", "end of a style", "border", "border of a quote", "links"],
)
def test_hostile_html_ends(html: str) -> None:
    assert seconds_for(lambda: read_email_text(html=html)) < 5


@pytest.mark.parametrize("unit", ["<", "<a", "<a ", "</a ", "<!", "<p x="])
def test_whether_a_hostile_text_is_html_is_seen_soon(unit: str) -> None:
    assert seconds_for(lambda: is_html(unit * (2_000_000 // len(unit)))) < 3


@pytest.mark.parametrize(
    "text",
    [
        REPLY.format("www." + ")" * 100_000),
        REPLY.format("> " + "www." * 50_000 + " x\nb\n> c"),
        "Hello\n" + "(mailto:" * 25_000,
    ],
    ids=["brackets behind a link", "links", "mailto"],
)
def test_hostile_text_ends(text: str) -> None:
    assert seconds_for(lambda: read_email_text(text=text)) < 5


def test_a_hostile_subject_ends() -> None:
    subject = "\n" * 40_000 + "x"
    assert seconds_for(lambda: read_email_text(text="Hello", subject=subject)) < 5


@pytest.mark.parametrize(
    "text",
    [
        "<a href=https://" + "x" * 90_000,
        "[x](https://" + "x" * 90_000,
        "<a " * 30_000,
        "<a href=https://a" * 5_000,
        "[x](https://a" * 7_000,
        "[x]" * 30_000,
        "[" * 90_000,
    ],
)
def test_hostile_attachments_end(text: str) -> None:
    assert seconds_for(lambda: read_attachments(f"x {text}")) < 3


def test_all_texts_of_the_attachments_have_one_bound() -> None:
    text = "https://example.org/a.pdf " + "." * (LONGEST_TEXT - 26)
    found = read_attachments([{"list": [text]}, {"list": [text] * 99}])
    assert len(found.files) == LONGEST_TEXTS // LONGEST_TEXT == 10
    assert found.left_out == 90


@pytest.mark.parametrize("unit", ["[", '["",', "[1,"])
def test_brackets_without_end_are_refused_at_once(unit: str) -> None:
    def read() -> None:
        with pytest.raises(UnreadableBodyError, match="nested"):
            read_json_object(b'{"a":' + unit.encode() * 3_000_000)

    with_ends = b'{"a":' + unit.encode() * 100 + b"1" + b"]" * 100 + b"}"
    assert read_json_object(with_ends).fields
    assert seconds_for(read) < 5


def test_a_number_of_a_character_may_have_any_length() -> None:
    read = read_email_text(html=f"<p>a &#{'1' * 5_000}; &#66;</p>")
    assert read.cleaned_body.startswith("a ")
    assert read.cleaned_body.endswith(" B")


@pytest.mark.parametrize(
    ("style", "is_shown"),
    [
        ("max-height:0", True),
        ("height:0", True),
        ("max-height:0;overflow:hidden", False),
        ("left:-9999px", True),
        ("top:-9999px;position:relative", True),
        ("position:absolute;left:-9999px", False),
        ("position:fixed;top:-9999px", False),
    ],
)
def test_only_what_no_client_shows_is_left_out(style: str, is_shown: bool) -> None:
    read = read_email_text(html=f"<p>one</p><p style='{style}'>two</p><p>three</p>")
    assert ("two" in read.cleaned_body) is is_shown


def test_a_link_that_is_not_closed_ends_where_the_next_begins() -> None:
    html = "<p><a href='https://a.example'>one<br><a href='https://b.example'>two</a> three</p>"
    assert read_email_text(html=html).cleaned_body == (
        "one\n<https://a.example>\ntwo <https://b.example> three"
    )


def test_what_stands_in_an_end_tag_without_end_is_not_lost() -> None:
    assert "Hello" in read_email_text(html="<style>a{}</style Hello").cleaned_body


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined"])
def test_a_codec_of_host_names_is_no_charset(charset: str) -> None:
    # Punycode takes the square of the length, and the others raise what is no UnicodeDecodeError.
    body = b'{"a": "' + b"a-" * 200_000 + b'"}'
    content_type = f"application/json; charset={charset}"
    assert seconds_for(lambda: read_json_object(body, content_type)) < 5
    assert read_json_object(body, content_type).fields["a"].startswith("a-")
