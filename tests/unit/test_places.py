"""How many emails are claimed before there are places for them."""

import pytest

from app.jobs import places as places_module
from app.jobs.places import MOST_AHEAD, Places


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(places_module, "time", made)
    return made


def handle(places: Places, clock: Clock, *, generations: int, number: int, seconds: float) -> None:
    """Have so many handlers run at a time, which begin and end together."""
    for _ in range(generations):
        for _ in range(number):
            places.occupy()
        clock.now += seconds
        for _ in range(number):
            places.handled(has_run=True)


@pytest.mark.parametrize(
    ("number", "seconds", "expected"),
    [
        (20, 0.001, MOST_AHEAD),
        (200, 0.1, MOST_AHEAD),
        (20, 0.1, 10),
        (200, 0.5, 20),
        (200, 10.0, 0),
        (20, 10.0, 0),
        (1, 1.0, 0),
        (1, 0.01, 5),
    ],
)
def test_as_many_are_claimed_ahead_as_end_while_a_claim_takes(
    clock: Clock, number: int, seconds: float, expected: int
) -> None:
    places = Places(number)
    assert places.ahead == 0
    handle(places, clock, generations=200, number=number, seconds=seconds)
    assert places.ahead == pytest.approx(expected, rel=0.35, abs=0.5)
    assert places.ahead <= MOST_AHEAD


def test_none_are_any_longer_where_handlers_take_their_time_or_none_runs(clock: Clock) -> None:
    places = Places(20)
    handle(places, clock, generations=200, number=20, seconds=0.001)
    assert places.ahead == MOST_AHEAD
    clock.now += 10
    assert places.ahead == 0
