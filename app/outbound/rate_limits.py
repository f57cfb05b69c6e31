"""How often an account's API may be asked: what it tells of its limits, the share of them that is
ours, and the pause after it refused who asks. One for all clients of a process.

No limit is ours alone: other tools of the team use the same account, and so do other processes of
Mailroom. What an answer says is left tells of all of them together.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import attrs
import httpx2
import structlog

from app.outbound.busy_hosts import DEFAULT_SECONDS, retry_after_seconds
from app.pauses import GrowingPause

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 60.0
# Of our own share: what is asked all the same while others use up the rest, or nothing would ever
# be done in an account that is always busy.
LEAST_SHARE = 0.1

FIRST_REFUSAL_SECONDS = 60.0
LONGEST_REFUSAL_SECONDS = 3_600.0

# Three spellings are in use, the last without the others' `reset`.
_LIMIT = ("ratelimit-limit", "rate-limit", "x-rate-limit")
_REMAINING = ("ratelimit-remaining", "rate-limit-remaining", "x-rate-limit-remaining")
_RESET = ("ratelimit-reset", "rate-limit-reset")


@attrs.frozen
class Limit:
    """One limit of an API."""

    requests: int
    """A minute, until an answer says otherwise."""
    share: float
    """The part that is ours."""
    is_told: bool = True
    """Whether the headers are about this limit; else it stays as it is."""


@attrs.define
class _Use:
    requests: int
    asked: deque[float] = attrs.field(factory=deque)
    busy_until: float = 0.0
    left: int | None = None
    """What all askers together may still ask until `reset_at`."""
    reset_at: float = 0.0


class RateLimits:
    """The limits of one account, for several threads.

    Args:
        limits: each by its name.
        clock: seconds that never go back.
    """

    def __init__(
        self, limits: dict[str, Limit], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._uses = {name: _Use(limit.requests) for name, limit in limits.items()}
        self._clock = clock
        self._lock = threading.Lock()
        self._refusal = GrowingPause(FIRST_REFUSAL_SECONDS, LONGEST_REFUSAL_SECONDS)
        self._refused_until = 0.0

    def take(self, name: str) -> float:
        """Take a place for one request. Returns 0, or how many seconds there is none."""
        limit, use = self._limits[name], self._uses[name]
        with self._lock:
            now = self._clock()
            while use.asked and use.asked[0] <= now - WINDOW_SECONDS:
                use.asked.popleft()
            if use.busy_until > now:
                return use.busy_until - now
            ours = max(1, int(use.requests * limit.share))
            until = use.asked[0] + WINDOW_SECONDS if use.asked else now
            if len(use.asked) >= ours:
                return until - now
            is_crowded = (
                use.left is not None and now < use.reset_at and use.left <= use.requests - ours
            )
            if is_crowded and len(use.asked) >= max(1, int(ours * LEAST_SHARE)):
                return min(use.reset_at, until) - now
            use.asked.append(now)
            return 0.0

    def heed(self, name: str, status: int, headers: httpx2.Headers) -> float:
        """Note what an answer says. Returns 0, or the seconds that it asks to wait.

        After a 401 `refused_seconds` tells how long not to ask; it grows with each further one.
        """
        with self._lock:
            now, use = self._clock(), self._uses[name]
            self._heed_refusal(status, now)
            asked = retry_after_seconds(headers.get("retry-after"))
            is_unavailable = status == HTTPStatus.SERVICE_UNAVAILABLE and asked is not None
            if status == HTTPStatus.TOO_MANY_REQUESTS or is_unavailable:
                seconds = DEFAULT_SECONDS if asked is None else asked
                use.busy_until = now + seconds
                return seconds
            if self._limits[name].is_told and (requests := _number(headers, _LIMIT)):
                use.requests = requests
            use.left = _number(headers, _REMAINING)
            reset = next((headers[n] for n in _RESET if n in headers), None)
            left_seconds = retry_after_seconds(reset)
            use.reset_at = now + (WINDOW_SECONDS if left_seconds is None else left_seconds)
            if use.left == 0:
                use.busy_until = use.reset_at
            return 0.0

    @property
    def refused_seconds(self) -> float:
        """How long it is not asked because of a refusal; 0 where it may be."""
        with self._lock:
            return max(0.0, self._refused_until - self._clock())

    def _heed_refusal(self, status: int, now: float) -> None:
        if status != HTTPStatus.UNAUTHORIZED:
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                self._refusal.reset()
                self._refused_until = 0.0
        elif now >= self._refused_until:
            # Of several that were on their way one counts.
            if self._refusal.is_first:
                log.error("zendesk_token_refused", settings="MAILROOM_ZENDESK_TOKEN, _EMAIL")
            self._refused_until = now + self._refusal.next_seconds()


def _number(headers: httpx2.Headers, names: tuple[str, ...]) -> int | None:
    text = next((headers[name] for name in names if name in headers), "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
