"""How often an API may be asked: our share of a limit, what its answers say, and refusals."""

import httpx2
import pytest
from structlog.testing import capture_logs

from app.outbound.rate_limits import Limit, RateLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits(clock: Clock, requests: int = 100, share: float = 0.5) -> RateLimits:
    return RateLimits({"api": Limit(requests, share)}, clock=clock)


def take_all(limits: RateLimits) -> int:
    taken = 0
    while limits.take("api") == 0:
        taken += 1
    return taken


def test_no_more_than_our_share_is_asked_in_a_minute(clock: Clock) -> None:
    made = limits(clock)
    assert take_all(made) == 50
    clock.now += 20
    assert made.take("api") == pytest.approx(40)
    clock.now += 40
    assert take_all(made) == 50


@pytest.mark.parametrize("name", ["ratelimit", "rate-limit"])
def test_the_accounts_own_limit_counts(clock: Clock, name: str) -> None:
    made = limits(clock)
    limit = "ratelimit-limit" if name == "ratelimit" else "rate-limit"
    made.heed("api", 200, httpx2.Headers({limit: "400", f"{name}-remaining": "399"}))
    assert take_all(made) == 200


def test_the_pair_without_a_reset_is_heeded(clock: Clock) -> None:
    made = limits(clock)
    made.heed("api", 200, httpx2.Headers({"x-rate-limit": "60", "x-rate-limit-remaining": "0"}))
    assert made.take("api") == pytest.approx(60)
    clock.now += 60
    assert take_all(made) == 30


def test_others_are_not_starved_and_we_go_on_slowly(clock: Clock) -> None:
    made = limits(clock)
    crowded = {"rate-limit": "100", "rate-limit-remaining": "40", "rate-limit-reset": "30"}
    made.heed("api", 200, httpx2.Headers(crowded))
    assert take_all(made) == 5
    assert made.take("api") == pytest.approx(30)
    clock.now += 31
    # A new minute: what was left of the old one says nothing any more.
    assert take_all(made) == 45


def test_the_last_request_of_a_minute_is_left_alone(clock: Clock) -> None:
    made = limits(clock)
    made.heed("api", 200, httpx2.Headers({"rate-limit-remaining": "0", "rate-limit-reset": "7"}))
    assert made.take("api") == pytest.approx(7)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry-after": "93"}, 93),
        (429, {}, 60),
        (503, {"retry-after": "5"}, 5),
        (503, {}, 0),
        (200, {"rate-limit-remaining": "many"}, 0),
        (200, {"rate-limit": "0", "x-rate-limit": "-1"}, 0),
    ],
)
def test_what_an_answer_asks_to_wait(
    clock: Clock, status: int, headers: dict[str, str], seconds: float
) -> None:
    made = limits(clock)
    assert made.heed("api", status, httpx2.Headers(headers)) == seconds
    assert made.take("api") == pytest.approx(seconds)


def test_a_limit_that_headers_do_not_tell_of_stays(clock: Clock) -> None:
    made = RateLimits({"api": Limit(8, 1.0, is_told=False)}, clock=clock)
    made.heed("api", 200, httpx2.Headers({"ratelimit-limit": "700", "ratelimit-remaining": "698"}))
    assert take_all(made) == 8


def test_the_pause_after_a_refusal_grows_and_ends(clock: Clock) -> None:
    made = limits(clock)
    assert made.refused_seconds == 0
    pauses = []
    with capture_logs() as logs:
        for _ in range(9):
            for _ in range(3):
                made.heed("api", 401, httpx2.Headers())
            pauses.append(made.refused_seconds)
            clock.now += made.refused_seconds
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert len(logs) == 1
    made.heed("api", 401, httpx2.Headers())
    made.heed("api", 502, httpx2.Headers())
    assert made.refused_seconds == 3600
    made.heed("api", 404, httpx2.Headers())
    assert made.refused_seconds == 0
    made.heed("api", 401, httpx2.Headers())
    assert made.refused_seconds == 60
