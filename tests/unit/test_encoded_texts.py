"""Texts that a template encoded are read as they were."""

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake.encoded_texts import ENCODED_PROBE, FIELD, PROBE, decode_texts


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_an_encoded_text_is_read_as_it_was(text: str) -> None:
    assert decode_texts({"subject": quote_plus(text), FIELD: ENCODED_PROBE})["subject"] == text


@pytest.mark.parametrize("probe", [None, PROBE, "", 1, [ENCODED_PROBE]])
def test_nothing_is_decoded_where_the_probe_does_not_say_so(probe: object) -> None:
    fields = {"subject": "a+b%20c", FIELD: probe}
    assert decode_texts(fields) == fields


@pytest.mark.parametrize("text", ["100%25 sure", "a b", "50%", "ü+", "%zz", 4711, None, ["a+b"]])
def test_what_cannot_have_been_encoded_stays_as_it_is(text: object) -> None:
    assert decode_texts({"subject": text, FIELD: ENCODED_PROBE})["subject"] == text


def test_names_of_files_are_decoded_and_their_addresses_are_not() -> None:
    url = "https://example.zendesk.com/attachments/token/x/?name=a+b%20c.pdf"
    fields = {
        FIELD: ENCODED_PROBE,
        "ticket_id": "1+1",
        "attachments": [{"filename": "a+%22b%22.pdf", "url": url}, "https://example.org/c+d"],
    }
    assert decode_texts(fields) == {
        **fields,
        "attachments": [{"filename": 'a "b".pdf', "url": url}, "https://example.org/c+d"],
    }
