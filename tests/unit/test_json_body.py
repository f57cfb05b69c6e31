"""Reading the bytes of a body: any JSON object comes back as it is, anything else is refused."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.intake.json_body import (
    CONTROL_CHARACTERS,
    DEEPEST_NESTING,
    JsonBody,
    UnreadableBodyError,
    read_json_object,
)

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=("Cs",)))
texts_with_surrogates = st.text(st.characters())


def values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )


objects = st.dictionaries(texts, values(texts), max_size=6)
objects_with_surrogates = st.dictionaries(
    texts_with_surrogates, values(texts_with_surrogates), max_size=6
)
# Bytes that look like JSON lead deeper than random ones.
almost_json = st.lists(
    st.sampled_from(
        [
            *(b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b'"a"', b'{"a":', b'"a":1'),
            *(b"\\ud800", b"\\u0000", b"null", b"NaN", b"Infinity", b"\n", b"\x00", b"\xff"),
            *(b"-", b"1", b"e9", b"1e999", b".5", b"\xef\xbb\xbf", "ä".encode()),
            *(b"[" * 1100, b"]" * 1100),
        ]
    ),
    max_size=12,
).map(b"".join)


def read(body: bytes) -> dict[str, Any]:
    return read_json_object(body).fields


def depth_of(value: Any) -> int:
    depth = 0
    level = [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


@given(objects, st.sampled_from([None, 2]))
def test_what_json_writes_is_read_back_the_same(fields: dict[str, Any], indent: int | None) -> None:
    assert read(json.dumps(fields, indent=indent).encode()) == fields
    assert read(json.dumps(fields, ensure_ascii=False).encode()) == fields


@given(st.dictionaries(texts, values(texts), max_size=6))
def test_what_msgspec_writes_is_read_back_the_same(fields: dict[str, Any]) -> None:
    body = msgspec.json.encode(fields)
    assert read_json_object(body) == JsonBody(fields, is_plain=b"\\u0000" not in body)


@given(objects_with_surrogates)
def test_lone_surrogates_are_read_back_the_same(fields: dict[str, Any]) -> None:
    # json joins two halves that meet; so does its reader.
    body = json.dumps(fields).encode()
    assert read(body) == json.loads(body)


@given(objects)
def test_a_byte_order_mark_does_not_hide_an_object(fields: dict[str, Any]) -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps(fields).encode()) == fields


@given(st.binary(max_size=200) | almost_json)
@example(b'{"a":"\\')
@example(b'{"a":"\\ud800')
@example(b'"' * 100_001)
@example(b'{"a":' * 50_000)
@example(b'{"a":' + b"1" * 100_000 + b"}")
@example(b'{"a":1' + b" " * 100_000)
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        fields = read_json_object(body).fields
    except UnreadableBodyError:
        return
    assert type(fields) is dict


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'["ticket_id"]',
        b"null",
        b"true",
        b"1",
        b'"text"',
        b"\xef\xbb\xbf[1]",
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableBodyError):
        read_json_object(body)


@pytest.mark.parametrize("body", [b"", b" \r\n", b"\xef\xbb\xbf", b"\x00"])
def test_what_is_blank_is_refused_and_says_so(body: bytes) -> None:
    with pytest.raises(UnreadableBodyError, match="blank"):
        read_json_object(body)


def test_utf_16_with_its_mark_is_read() -> None:
    assert read('{"a":"ä"}'.encode("utf-16")) == {"a": "ä"}


def test_the_refusal_of_another_value_shows_what_an_object_looks_like() -> None:
    with pytest.raises(UnreadableBodyError, match='"ticket_id": "35436"'):
        read_json_object(b"[1]")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1,}',
        b'{"a": "say "hello""}',
        b"{'a': 1}",
        b'{"a" 1}',
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 01}',
        b'{"a": "\\x"}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1}\x00',
        b"ticket_id=1&from_email=a%40example.com",
        b"<email/>",
        b'{"a": ' * 100_000 + b"1" + b"]" * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"}",
    ],
)
def test_what_is_not_json_is_refused_with_a_hint_at_the_template(body: bytes) -> None:
    with pytest.raises(UnreadableBodyError, match="template"):
        read_json_object(body)


@pytest.mark.parametrize(
    "body",
    [b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xc3"}', "ä".encode("utf-16")[:-1]],
)
def test_what_is_not_utf_8_is_refused_and_says_so(body: bytes) -> None:
    with pytest.raises(UnreadableBodyError, match="UTF-"):
        read_json_object(body)


@pytest.mark.parametrize("opening", [b"[", b'{"k": ', b'[{"k": ', b'[[{"k": [1, '])
def test_an_object_nested_100_000_deep_is_read_where_it_is_not_deep(opening: bytes) -> None:
    closing = b"".join({b"[": b"]", b"{": b"}"}.get(bytes([c]), b"") for c in reversed(opening))
    body = (
        b'{"before": "a [ in a \\" string", "deep": '
        + opening * 100_000
        + b"1"
        + closing * 100_000
        + b', "after": {"list": [1, [2]]}, "text": "}]"}'
    )
    fields = read(body)
    assert {**fields, "deep": None} == {
        "before": 'a [ in a " string',
        "deep": None,
        "after": {"list": [1, [2]]},
        "text": "}]",
    }
    assert depth_of(fields) <= DEEPEST_NESTING
    assert not read_json_object(body).is_plain


def test_an_object_in_which_everything_but_one_field_is_deep_keeps_that_field() -> None:
    deep = b"[" * 5_000 + b"]" * 5_000
    body = b'{"a":%b,"b":%b,"ticket_id":"1","c":{"d":%b}}' % (deep, deep, deep)
    fields = read(body)
    assert fields["ticket_id"] == "1"
    assert set(fields) == {"a", "b", "c", "ticket_id"}


@given(st.integers(1, 3_000))
def test_nesting_of_any_depth_is_read(depth: int) -> None:
    fields = read(b'{"a":"b","deep":' + b"[" * depth + b"]" * depth + b"}")
    assert fields["a"] == "b"
    assert type(fields["deep"]) is list


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("-" + "9" * 999, 1 - 10**999),
        ("9" * 4_301, "9" * 4_301),
        ("-" + "9" * 100_000, "-" + "9" * 100_000),
        ("1e400", "1e400"),
        ("-1e400", "-1e400"),
        ("1e999999999999999999", "1e999999999999999999"),
        ("1e-400", 0.0),
        ("0." + "1" * 100_000, pytest.approx(1 / 9)),
        ("-0", 0),
    ],
)
def test_a_number_of_any_size_is_read_as_a_number_or_as_its_digits(
    number: str, expected: Any
) -> None:
    assert read(f'{{"n": {number}, "ticket_id": "1"}}'.encode())["n"] == expected


def test_the_last_of_duplicate_keys_counts() -> None:
    assert read(b'{"a": 1, "a": 2, "a": 3}') == {"a": 3}
    assert read(b'{"a": 1, "s": "\\ud800", "a": 2}')["a"] == 2


def test_a_raw_line_break_or_nul_inside_a_string_is_read() -> None:
    body = read_json_object(b'{"body_text": "Hello,\nwhere\tis\x00it?"}')
    fields = {"body_text": "Hello,\nwhere\tis\x00it?"}
    assert body == JsonBody(fields, is_plain=False, mended=(CONTROL_CHARACTERS,))


def test_an_escaped_nul_is_read() -> None:
    assert read(b'{"a\\u0000": "b\\u0000"}') == {"a\x00": "b\x00"}


def test_surrogates_that_are_a_pair_are_one_character() -> None:
    assert read(b'{"a": "\\ud83d\\udce6", "b": "\\ud83d"}') == {"a": "📦", "b": "\ud83d"}
