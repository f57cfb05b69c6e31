"""Attachments in the shapes that templates give them: what is recognised is taken, none refuses."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.intake.attachments import LONGEST_TEXT, MOST_FILES, read_attachments

A = "https://example.org/a.pdf"
B = "https://example.org/b.pdf"
RECORD = "https://example.zendesk.com/api/v2/attachments/7.json"
TOKEN = "https://example.zendesk.com/attachments/token/x/?name=a.pdf"


def urls_of(value: Any) -> list[str]:
    return [file["url"] for file in read_attachments(value).files]


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ([A, B], [A, B]),
        (A, [A]),
        (f" {A} ", [A]),
        (f"{A}\n{B}", [A, B]),
        (f"{A}\r\n\r\n{B}\r\n", [A, B]),
        (f"{A}, {B}", [A, B]),
        (f"{A},{B},", [A, B]),
        (f"{A}; {B}", [A, B]),
        (f"{A} {B}", [A, B]),
        (f"{A} | {B}", [A, B]),
        (f"a.pdf: {A}\nb.pdf ({B})", [A, B]),
        (json.dumps([{"url": A}]), [A]),
        (json.dumps({"url": A}), [A]),
        (json.dumps([A, B]), [A, B]),
        (json.dumps([json.dumps({"url": A})]), [A]),
        (f"[{{'url': '{A}'}}]", [A]),
        (f'{{"url": "{A}"}}, {{"url": "{B}"}}', [A, B]),
        ({"url": A}, [A]),
        ([[{"url": A}], [[B]]], [A, B]),
        ({"a.pdf": A, "b.pdf": {"href": B}}, [A, B]),
        ({"0": {"url": A}, "1": {"url": B}}, [A, B]),
        ({"attachments": [{"url": A}]}, [A]),
        ({"files": {"data": [A]}}, [A]),
        (f'<a href="{A}">a.pdf</a> <a class="x" href=\'{B}\'>b</a>', [A, B]),
        (f"[a.pdf]({A}) and [b]({B} \"title\")", [A, B]),
        (f"![image]({A})", [A]),
        (f"<{A}>", [A]),
        ("HTTPS://EXAMPLE.ORG/A.PDF", ["HTTPS://EXAMPLE.ORG/A.PDF"]),
        ("https://example.org/a,b.pdf", ["https://example.org/a,b.pdf"]),
        ("https://example.org/my letter.pdf", ["https://example.org/my%20letter.pdf"]),
        ("https://example.org/a(1).pdf", ["https://example.org/a(1).pdf"]),
        ("https://example.org/?u=https://example.com/a", ["https://example.org/?u=https://example.com/a"]),
        *(([{key: A}], [A]) for key in ("content_url", "contentUrl", "mapped_content_url", "href")),
        *(([{key: A}], [A]) for key in ("link", "URL", "download_url", "src", "uri")),
        ([{"url": None, "content_url": A}], [A]),
        ([{"url": "", "link": A}], [A]),
        ([{"url": RECORD, "content_url": TOKEN}], [TOKEN]),
        ([{"url": RECORD}], [RECORD]),
    ],
)  # fmt: skip
def test_urls_are_recognised_in_any_shape(value: Any, urls: list[str]) -> None:
    found = read_attachments(value)
    assert [file["url"] for file in found.files] == urls
    assert found.left_out == 0


@pytest.mark.parametrize("nothing", [None, "", " \n", [], {}, "[]", "{}", [None, "", []], "[null]"])
def test_nothing_is_nothing_and_not_told(nothing: Any) -> None:
    found = read_attachments(nothing)
    assert (found.files, found.left_out) == ([], 0)


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1.5, True, "a.pdf", "[#<Attachment id: 1>]", "none", {"filename": "a.pdf"}),
        *("//example.org/a.pdf", "example.org/a.pdf", "www.example.org/a.pdf", "ftp://example.org"),
        *("https://", "https:///a.pdf", "file:///etc/passwd", "cid:image001", "javascript:alert()"),
        *([{"url": ""}], [{"url": " "}], [{"url": 1}], [{"url": "u"}], [{"url": f"{A}\n"}, 0]),
    ],
)  # fmt: skip
def test_what_is_no_whole_url_is_told_and_not_taken(value: Any) -> None:
    found = read_attachments(value)
    assert all(file["url"] == A for file in found.files)
    assert found.left_out == 1


def test_a_bad_one_leaves_the_good_ones() -> None:
    found = read_attachments([{"url": A}, {"filename": "b.pdf"}, 7, B, {"url": "u"}])
    assert [file["url"] for file in found.files] == [A, B]
    assert found.left_out == 3


def test_further_keys_are_kept_and_names_are_found_under_their_other_names() -> None:
    (file,) = read_attachments(
        [{"content_url": A, "file_name": "a.pdf", "contentType": "application/pdf", "size": "12",
          "inline": True, "id": [1]}]
    ).files  # fmt: skip
    assert file == {
        "content_url": A,
        "file_name": "a.pdf",
        "contentType": "application/pdf",
        "url": A,
        "filename": "a.pdf",
        "content_type": "application/pdf",
        "size": 12,
        "inline": True,
        "id": [1],
    }


def test_a_url_alone_is_a_file_of_which_nothing_else_is_known() -> None:
    assert read_attachments(A).files == [
        {"url": A, "filename": None, "content_type": None, "size": None}
    ]


def test_names_of_links_and_keys_are_file_names() -> None:
    for value in ({"a.pdf": A}, {"a.pdf": {"url": A}}, f"[a.pdf]({A})", f'<a href="{A}">a.pdf</a>'):
        assert [file["filename"] for file in read_attachments(value).files] == ["a.pdf"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        *((12345, 12345), (0, 0), (12345.0, 12345), ("12345", 12345), (" 12345 ", 12345)),
        *((2**63 - 1, 2**63 - 1), (2**63, None), (10**400, None), (-1, None), (1.5, None)),
        *((1e300, None), ("12 KB", None), ("", None), ("9" * 5_000, None), (True, None)),
        *((None, None), ([], None), ({}, None)),
    ],
)
def test_a_size_is_a_whole_number_or_unknown(size: Any, expected: int | None) -> None:
    (file,) = read_attachments([{"url": A, "size": size}]).files
    assert file["size"] == expected
    assert type(file["size"]) is type(expected)


@pytest.mark.parametrize("field", ["filename", "content_type"])
@pytest.mark.parametrize("value", [1, True, [], {}, "", " ", None, "\x00"])
def test_an_odd_name_or_type_is_unknown(field: str, value: Any) -> None:
    (file,) = read_attachments([{"url": A, field: value}]).files
    assert file[field] is None


def test_half_a_character_is_replaced_in_keys_and_values_at_every_depth() -> None:
    odd = {"url": A, "alt": "photo \ud83d", "k\ud800\x00": [{"\udc00": ["\ud83d\udce6 \x00"]}]}
    (file,) = read_attachments([odd]).files
    assert file["alt"] == "photo \ufffd"
    assert file["k\ufffd"] == [{"\ufffd": ["📦 "]}]


@pytest.mark.parametrize("blank", [" \x00 ", "\x00", "\n\x00\t\x00", ["\x00 "], {"a.pdf": " \x00"}])
def test_what_is_blank_without_its_nuls_is_no_file(blank: Any) -> None:
    assert read_attachments(blank).files == []


def test_what_nests_without_end_is_cut() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    (file,) = read_attachments([{"url": A, "deep": deep}]).files
    assert json.dumps(file).count("[") < 110
    assert read_attachments(deep).left_out == 1


def test_no_list_is_longer_than_anybody_needs() -> None:
    found = read_attachments([A] * (MOST_FILES + 5))
    assert len(found.files) == MOST_FILES
    assert found.left_out == 5


@pytest.mark.parametrize(
    "part", [" ", ",", "<a ", "[", "(", "https://", "{", '"', "<a href=", "](h"]
)
def test_hostile_text_is_read_in_linear_time(part: str) -> None:
    """A quadratic reader takes a hundred times as long for ten times the text."""

    def seconds(length: int) -> float:
        text = (part * length)[:length]
        times = []
        for _ in range(3):
            began = time.process_time()
            read_attachments(text)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(LONGEST_TEXT) < 60 * (seconds(LONGEST_TEXT // 10) + 0.001)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters()) | st.text(' \x00\n[{"')
    | st.sampled_from([A, B, f"{A} {B}", f"<a href={A}>", "[1e999]"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["url", "content_url", "a.pdf", "size", "\x00"]), inner),
    max_leaves=10,
)  # fmt: skip


@given(values)
@example({"url": A, "size": float("inf")})
def test_whatever_comes_can_be_stored(value: Any) -> None:
    for file in read_attachments(value).files:
        assert file["url"].lower().startswith(("http://", "https://"))
        assert not file["url"].isspace()
        assert urls_of([{"url": file["url"]}]) == [file["url"]]
