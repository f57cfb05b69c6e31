"""What an operator types into the field of a search."""

import contextlib
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.search import Search
from app.api.search_text import QUALIFIERS, SearchTextError, read_search
from app.models.incoming_email import ProcessingStatus, SyncStatus


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("", Search()),
        ("late invoice", Search(words=("late", "invoice"))),
        ('"late invoice" 35436', Search(words=("late invoice", "35436"))),
        ("Re: late", Search(words=("Re:", "late"))),
        ("status:failed", Search(status=(ProcessingStatus.FAILED,))),
        (
            "status:received STATUS:Queued",
            Search(status=(ProcessingStatus.RECEIVED, ProcessingStatus.QUEUED)),
        ),
        ('error:"timed out" late', Search(error_words=("timed out",), words=("late",))),
        ("from:erika@example.com", Search(from_email="erika@example.com")),
        ("from:example.com", Search(from_domain="example.com")),
        ("from:@example.com", Search(from_domain="example.com")),
        ("ticket:123 has:attachment", Search(ticket_id="123", has_attachment=True)),
        ("sync:failed", Search(sync_status=SyncStatus.FAILED)),
        (
            "received:2026-11-01..2026-11-03",
            Search(
                received_from=datetime(2026, 11, 1, tzinfo=UTC),
                received_until=datetime(2026, 11, 4, tzinfo=UTC),
            ),
        ),
        (
            "ended:2026-11-03",
            Search(
                completed_from=datetime(2026, 11, 3, tzinfo=UTC),
                completed_until=datetime(2026, 11, 4, tzinfo=UTC),
            ),
        ),
        (
            "received:2026-11-01T14:05+01:00..",
            Search(received_from=datetime(2026, 11, 1, 13, 5, tzinfo=UTC)),
        ),
        (
            "handler-result.customer.tier:gold",
            Search(handler_results=((("customer", "tier"), "gold"),)),
        ),
    ],
)
def test_words_and_qualifiers_are_told_apart(text: str, search: Search) -> None:
    assert read_search(text) == search


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour:red", "there is no colour: to search by. There are status:, error:, failure:"),
        ("status:broken", "status: is one of received, queued"),
        ("sync:maybe", "sync: is one of pending"),
        ("has:money", "has: knows attachment"),
        ("received:yesterday", "received: takes days and moments"),
        ("received:2026-02-31", "there is no day 2026-02-31"),
        ("received:..", "received: needs a day"),
        ("received:9999-12-31", "outside the calendar"),
        ("received:0001-01-01T00:00+14:00..", "outside the calendar"),
        ("ticket:1 ticket:2", "ticket: is given twice"),
        ("handler-result.:x", "names no key"),
        ("a" * 501, "longer than 500"),
        ("a\0b", "a character that no text has"),
        ("from:a\ud800", "a character that no text has"),
    ],
)
def test_what_cannot_be_understood_is_said(text: str, told: str) -> None:
    with pytest.raises(SearchTextError, match=re.escape(told)):
        read_search(text)


@pytest.mark.parametrize("name", QUALIFIERS)
def test_each_example_is_one_that_works(name: str) -> None:
    assert read_search(QUALIFIERS[name].example) != Search()


@given(st.text(max_size=200))
def test_any_text_is_a_search_or_is_refused_in_words(text: str) -> None:
    with contextlib.suppress(SearchTextError):
        assert isinstance(read_search(text), Search)
