"""All emails of the project's own collection are read right, whole."""

import pytest

from benchmarks.replies import Sample, own_samples, wrong_parts

SAMPLES = list(own_samples())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_each_email_of_the_collection_is_read_right(sample: Sample) -> None:
    assert wrong_parts(sample) == {}


def test_the_collection_has_many_languages_and_both_kinds_of_body() -> None:
    assert len(SAMPLES) >= 80
    assert {sample.is_html for sample in SAMPLES} == {True, False}
    # A collection of emails with nothing to take away would prove little.
    assert sum(len(s.right["cleaned_body"]) < len(s.body) - 10 for s in SAMPLES) > 70
