"""The budget of bytes of request bodies."""

import pytest

from app.http.bodies import LARGEST_BODY, TINY, BodyBudget, TooMuchHeldError
from app.http.protocol import MOST_CONNECTIONS
from app.settings import Settings

MIB = 1024 * 1024


def default_budget() -> BodyBudget:
    fields = Settings.model_fields
    return BodyBudget(
        fields["intake_max_waiting_bytes"].default, largest_body=fields["max_body_bytes"].default
    )


def fill(budget: BodyBudget, size: int, *, most: int = 10_000_000) -> int:
    """Hold as many bodies of a size as there is room for, up to a number."""
    for count in range(most):
        try:
            budget.take(size, before=0)
        except TooMuchHeldError:
            return count
    return most


def test_what_is_held_is_bounded_and_given_back_makes_room() -> None:
    budget = BodyBudget(TINY)
    budget.take(TINY - 1, before=0)
    with pytest.raises(TooMuchHeldError):
        budget.take(2, before=0)
    budget.take(1, before=0)
    budget.give_back(TINY)
    budget.take(TINY, before=0)


def test_large_bodies_leave_room_for_small_ones_and_those_for_tiny_ones() -> None:
    budget = default_budget()
    assert 4 <= fill(budget, 10 * MIB) < 6
    fill(budget, LARGEST_BODY + 1)
    assert fill(budget, LARGEST_BODY) >= 50
    assert fill(budget, TINY, most=MOST_CONNECTIONS) == MOST_CONNECTIONS


def test_128_senders_have_room_for_large_emails_at_once() -> None:
    assert fill(default_budget(), 300 * 1024, most=128) == 128


def test_a_body_that_grows_counts_as_what_it_has_become() -> None:
    budget = default_budget()
    fill(budget, LARGEST_BODY + 1)
    budget.take(LARGEST_BODY, before=0)
    with pytest.raises(TooMuchHeldError):
        budget.take(1, before=LARGEST_BODY)


@pytest.mark.parametrize("most", [2_000, 10 * MIB])
def test_a_body_of_the_largest_size_fits_whatever_is_set(most: int) -> None:
    BodyBudget(most, largest_body=10 * MIB).take(10 * MIB, before=0)
