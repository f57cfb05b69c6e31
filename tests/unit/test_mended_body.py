"""Bodies that a template broke: read in the one way there is or refused, never otherwise."""

import contextlib
import json
import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.intake import field_orders
from app.intake.field_orders import FieldOrders
from app.intake.json_body import (
    CONTROL_CHARACTERS,
    BrokenBodyError,
    JsonBody,
    UnreadableBodyError,
    read_json_object,
)
from app.intake.mended_body import read_mended, read_without_intruders

FRESH = FieldOrders()
HEAD = '{"ticket_id": "4711", "from_email": "kim@example.org", '
ORDER = ("ticket_id", "from_email", "from_name", "subject", "body_text", "received_at")
HOSTILE = [
    'say "hi"',
    '"',
    '""',
    '"quoted"',
    '5"',
    'a "b" and "c',
    "C:\\",
    "D:\\Users\\kim",
    "a\\",
    '", "subject": "x',
    '", "body_text": "x", "x": "',
    '","from_email":"x@example.org',
    '"}',
    '",',
    '{"a": "b", "c": [1]}',
    '"}\n{"ticket_id": "1',
    "line\nbreak",
    "tab\there",
    "\r\n",
    "\x01",
    "",
    '", "received_at": "2020-01-01T00:00:00Z',
    '\\"',
    '\\", "subject": "x',
    '", "priority": "x',
    "plain",
    "Grüße 📦",
    ",",
    ":",
    "[]",
    "{}",
    '", ',
    '",}',
    '": "',
    '"a": 1',
    "null",
    "\\",
    '", "attachments": [{"url": "https://example.com/x"}], "x": "',
    "C:\\new",
    "\\u0041",
    "\\\\srv",
]
hostile = st.sampled_from(HOSTILE) | st.lists(
    st.sampled_from([*HOSTILE, *'"\\,:{}[] ntu', "subject", "body_text"]), max_size=6
).map("".join)


def take(
    body: bytes | str, orders: FieldOrders = FRESH, content_type: str | None = None
) -> JsonBody:
    """Read a signed body as the Intake does."""
    body = body.encode() if isinstance(body, str) else body
    try:
        read = read_json_object(body, content_type)
    except BrokenBodyError:
        return read_mended(body, content_type, orders)
    return read_without_intruders(body, read, content_type, orders)


def learned(*templates: tuple[str, ...]) -> FieldOrders:
    orders = FieldOrders()
    for template in templates:
        orders.learn(template)
    return orders


@pytest.mark.parametrize(
    ("rest", "fields"),
    [
        ('"subject": "Order "A-17" is broken", "body_text": "He said "hello" twice."}',
         {"subject": 'Order "A-17" is broken', "body_text": 'He said "hello" twice.'}),
        ('"body_text": "The size is 5"", "received_at": "2026-11-24T09:00:00Z"}',
         {"body_text": 'The size is 5"', "received_at": "2026-11-24T09:00:00Z"}),
        ('"subject": ""Order"", "body_text": ""}', {"subject": '"Order"', "body_text": ""}),
        ('"from_name": "Kim "K" Lee"}', {"from_name": 'Kim "K" Lee'}),
        ('"body_text": "a "b"\nand\tc"}', {"body_text": 'a "b"\nand\tc'}),
        ('"body_text": "see C:\\Users\\kim and \\\\srv\\unit"}',
         {"body_text": "see C:\\Users\\kim and \\srv\\unit"}),
        ('"body_text": "path C:\\"}', {"body_text": "path C:\\"}),
        ('"subject": "path C:\\", "body_text": "x"}', {"subject": "path C:\\", "body_text": "x"}),
        ('"subject": "line\nbreak"}', {"subject": "line\nbreak"}),
        ('"attachments": [{"url": "https://example.org/1"},],}',
         {"attachments": [{"url": "https://example.org/1"}]}),
        ('"attachments": [,{"url": "https://example.org/1"},,{"url": "https://example.org/2"}]}',
         {"attachments": [{"url": "https://example.org/1"}, {"url": "https://example.org/2"}]}),
        ('"attachments": [{"url": "https://example.org/1"} {"url": "https://example.org/2"}]}',
         {"attachments": [{"url": "https://example.org/1"}, {"url": "https://example.org/2"}]}),
        ('"attachments": [] "subject": "x"}', {"attachments": [], "subject": "x"}),
        ('"size": , "subject": "x", "n": }', {"size": None, "subject": "x", "n": None}),
        ('"subject": "a "b"", "attachments": [{"url": "https://example.org/1"},]}',
         {"subject": 'a "b"', "attachments": [{"url": "https://example.org/1"}]}),
        ('"subject": "a "b"",}', {"subject": 'a "b"'}),
    ],
)  # fmt: skip
def test_what_can_be_read_in_one_way_is_mended_and_said(rest: str, fields: dict[str, Any]) -> None:
    read = take(HEAD + rest)
    assert read.fields == {"ticket_id": "4711", "from_email": "kim@example.org", **fields}
    assert read.mended
    assert not read.is_plain


@pytest.mark.parametrize(
    "body",
    [
        HEAD + '"subject": "cut off he',
        HEAD + '"subject": "x"} and more',
        HEAD + '"subject": "a "b"", "priority": "high"}',
        HEAD + '"body_text": "say "hi", "subject": "x"}',
        HEAD + '"subject": "a "b"", "subject": "c"}',
        HEAD + '"subject": "a", "subject": "b"}',
        HEAD + '"body_text": "C:\\new\\Users"}',
        HEAD + '"subject": "C:\\Users", "body_text": "a\\nb"}',
        HEAD + '"subject": "a \\n "b""}',
        HEAD + '"a": "1" "b": "2"}',
        HEAD + '"attachments": ["https://example.org/1" "https://example.org/2"]}',
        '{"subject": "a "b"", "ticket_id": "1", "from_email": "kim@example.org"}',
        '{"ticket_id": "4711", "from_email": "k"m@example.org"}',
        '{"ticket_id": NaN}',
        "ticket_id=1&from_email=kim%40example.org",
        "<email/>",
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused(body: str) -> None:
    with pytest.raises(BrokenBodyError):
        take(body)


@pytest.mark.parametrize("body", ["", "  ", "\ufeff", "\x00", "[]", "null", '"text"', "[1,]"])
def test_what_is_blank_or_no_object_is_no_email(body: str) -> None:
    with pytest.raises(UnreadableBodyError) as caught:
        take(body)
    assert not isinstance(caught.value, BrokenBodyError) or body == "[1,]"


def test_an_order_that_was_learned_or_stated_tells_where_a_text_ends() -> None:
    body = '{"subject": "a "b"", "note": "c "d"", "ticket_id": 7, "from_email": "kim@example.org"}'
    fields = {"subject": 'a "b"', "note": 'c "d"', "ticket_id": 7, "from_email": "kim@example.org"}
    order = ("subject", "note", "ticket_id", "from_email")
    with pytest.raises(BrokenBodyError):
        take(body)
    assert take(body, learned(order)).fields == fields
    assert take(body, FieldOrders([order])).fields == fields


def test_orders_may_be_learned_while_a_long_body_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = learned(ORDER, (*ORDER, "webhook_id"))
    readings = field_orders._Reader.readings

    def read_beside(reader: field_orders._Reader) -> list[Any]:
        # As the event loop does, where a thread reads.
        orders.learn((*ORDER, f"custom_{len(seen)}"))
        seen.append(reader)
        return readings(reader)

    seen: list[field_orders._Reader] = []
    monkeypatch.setattr(field_orders._Reader, "readings", read_beside)
    fields = dict.fromkeys(ORDER, "a") | {"subject": 'a "b"'}
    body = json.dumps(fields).replace('\\"', '"')
    assert take(body, orders).fields == fields
    assert len(seen) == 2


def test_with_two_templates_that_fit_it_is_not_guessed_which() -> None:
    body = HEAD + '"body_text": "a "b"", "received_at": "2026-11-24T09:00:00Z"}'
    short, long = (
        ("ticket_id", "from_email", "body_text"),
        ("ticket_id", "from_email", "body_text", "received_at"),
    )
    assert take(body, learned(long)).fields["body_text"] == 'a "b"'
    for orders in (learned(short), learned(short, long)):
        with pytest.raises(BrokenBodyError):
            take(body, orders)


def test_fields_that_a_text_brings_along_are_that_text_where_the_fields_are_stated() -> None:
    stated = FieldOrders([("ticket_id", "from_email", "subject", "body_text")])
    body = HEAD + '"subject": "a", "body_text": "b", "subject": "x", "received_at": "2020"}'
    assert take(body, stated).fields["body_text"] == 'b", "subject": "x", "received_at": "2020'
    other = HEAD + '"subject": "a"}'
    assert take(other, stated) == read_json_object(other.encode())


@pytest.mark.parametrize(
    ("charset", "encoded"),
    [
        *(("windows-1252", "cp1252"), ("ISO-8859-1", "latin-1"), ("utf-16", "utf-16")),
        *(("UTF-8", "utf-8"), ("iso-8859-1", "utf-8"), ("koi8-r", "utf-8"), ("nonsense", "utf-8")),
    ],
)
def test_the_declared_charset_is_heeded_unless_the_bytes_are_utf_8(
    charset: str, encoded: str
) -> None:
    body = (HEAD + '"subject": "Größe 5"}').encode(encoded)
    for content_type in (
        f"application/json; charset={charset}",
        f'application/json;charset="{charset}"',
    ):
        read = take(body, content_type=content_type)
        assert read.fields["subject"] == "Größe 5"
        assert read.mended == ()


def test_a_charset_that_is_ascii_with_escapes_is_read_by_it() -> None:
    body = (HEAD + '"subject": "日本"}').encode("iso-2022-jp")
    assert (
        take(body, content_type="application/json; charset=iso-2022-jp").fields["subject"] == "日本"
    )


@pytest.mark.parametrize("content_type", [None, "application/json; charset=utf-8"])
def test_bad_bytes_are_replaced_and_counted(content_type: str | None) -> None:
    body = HEAD.encode() + '"body_text": "ok ä '.encode() + b'\xff\x92 rest", "subject": "a "b""}'
    with pytest.raises(BrokenBodyError):
        read_json_object(body, content_type)
    read = take(body.replace(b' "b"', b""), content_type=content_type)
    assert read.fields["body_text"] == "ok ä \ufffd\ufffd rest"
    assert re.search(r"not UTF-8 were replaced: 2, the first at \d+", read.mended[0])


def render(template: tuple[str, ...], values: dict[str, str], style: str) -> str:
    comma, colon, begin, end = {
        "spaced": (", ", ": ", "{", "}"),
        "lines": (",\n  ", ": ", "{\n  ", "\n}\n"),
        "tight": (",", ":", "{", "}"),
    }[style]
    pairs = (f'"{name}"{colon}"{values[name]}"' for name in template)
    return begin + comma.join(pairs) + end


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, ...]:
    more = draw(st.sets(st.sampled_from([*ORDER[2:], "body_html", "priority"]), max_size=4))
    names = ["ticket_id", "from_email", *sorted(more)]
    return tuple(draw(st.permutations(names)))


KNOWN_ESCAPE = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})')


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    template=templates(),
    others=st.lists(templates(), max_size=2),
    texts=st.lists(hostile, min_size=8, max_size=8),
    style=st.sampled_from(["spaced", "lines", "tight"]),
    is_stated=st.booleans(),
)
@example(ORDER, [], ["a", 'b "c"', '", "subject": "x', "", "", "", "", ""], "spaced", False)
@example(ORDER, [], ["a", 'b "c"', '", "subject": "x', "", "", "", "", ""], "spaced", True)
def test_what_is_repaired_is_what_a_right_template_had_sent(
    template: tuple[str, ...], others: list[tuple[str, ...]], texts: list[str], style: str,
    is_stated: bool,
) -> None:  # fmt: skip
    values = {
        **dict(zip(template, texts, strict=False)),
        "ticket_id": "35436",
        "from_email": "kim@example.org",
    }
    if "received_at" in template:
        values["received_at"] = "2026-11-24T09:00:00Z"
    orders = FieldOrders([template]) if is_stated else learned(template, *others)
    try:
        read = take(render(template, values, style), orders)
    except UnreadableBodyError:
        return
    if set(read.mended) <= {CONTROL_CHARACTERS}:
        # It was JSON as it stood, or but for a line break: the fields are where JSON has them.
        return
    text = "".join(values.values())
    if (
        (KNOWN_ESCAPE.search(text) and "\n" in text)
        or (any(ord(c) < 32 for c in text) and "\\" in text)
        or "\\\\" in text
    ):
        # Read as every reader of JSON does: an escape that is whole is one.
        return
    assert read.fields == values


def test_good_values_in_every_template_are_always_repaired_of_their_quotes() -> None:
    """The property above would hold for a reader that refuses everything."""
    values = dict.fromkeys([*ORDER, "body_html"], 'say "hi"') | {
        "ticket_id": "1",
        "from_email": "kim@example.org",
        "received_at": "2026-11-24T09:00:00Z",
    }
    for style in ("spaced", "lines", "tight"):
        for template in (ORDER, tuple(reversed(ORDER)), (*ORDER, "body_html")):
            read = take(render(template, values, style), learned(template))
            assert read.fields == {name: values[name] for name in template}


@pytest.mark.parametrize(
    "text",
    [
        '"',
        '"" ',
        '", "subject": "',
        '\\"',
        "\\",
        "{",
        "[",
        ",",
        ", ",
        ": ",
        ' "a": "b", ',
        "\n",
        "ä",
    ],
)
def test_no_text_is_too_long_to_end(text: str) -> None:
    """Ten times as long may take some ten times as long, and never a hundred times."""

    def seconds(length: int) -> float:
        body = HEAD + '"subject": "' + (text * length)[:length] + '", "body_text": "b"}'
        best = 1e9
        for _ in range(2):
            began = time.process_time()
            with contextlib.suppress(UnreadableBodyError):
                take(body, learned((*ORDER[:2], "subject", "body_text")))
            best = min(best, time.process_time() - began)
        return best

    assert seconds(500_000) < 60 * (seconds(50_000) + 0.002)


def test_what_comes_whole_is_read_as_it_is() -> None:
    fields = {"ticket_id": "1", "from_email": "kim@example.org", "subject": 'say "hi"\n\\'}
    body = json.dumps(fields).encode()
    assert take(body, learned(tuple(fields))) == JsonBody(fields, is_plain=True)
