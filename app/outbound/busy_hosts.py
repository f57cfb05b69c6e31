"""Hosts that asked to be left alone for a while (429, or 503 with Retry-After), and until when."""

import time
from datetime import UTC, datetime

import httpx2

from app.outbound.dates import http_date
from app.outbound.errors import OutboundError

# What a 429 without a number means; limits are mostly by minute.
DEFAULT_SECONDS = 60.0
LONGEST_SECONDS = 3_600.0

_TOO_MANY = 429
_UNAVAILABLE = 503


class BusyHostError(OutboundError):
    """The host asked to be left alone for so many seconds from now."""

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__(f"{host} asks to wait {seconds:.0f} seconds", host)
        self.seconds = seconds


class BusyHosts:
    """What the hosts that one process calls asked for."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def check(self, host: str) -> None:
        """See that a host may be called now.

        Raises:
            BusyHostError: not yet.
        """
        left = self._until.get(host, 0.0) - time.monotonic()
        if left > 0:
            raise BusyHostError(host, left)
        self._until.pop(host, None)

    def heed(self, host: str, status: int, headers: httpx2.Headers) -> None:
        """Note what an answer asks for.

        Raises:
            BusyHostError: to be left alone.
        """
        seconds = retry_after_seconds(headers.get("retry-after"))
        if status == _TOO_MANY or (status == _UNAVAILABLE and seconds is not None):
            seconds = DEFAULT_SECONDS if seconds is None else seconds
            self._until[host] = time.monotonic() + seconds
            raise BusyHostError(host, seconds)


def retry_after_seconds(value: str | None) -> float | None:
    """The pause that a Retry-After asks for, in seconds or as a date, at most an hour; None where
    it says nothing that is understood. https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = (value or "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), LONGEST_SECONDS)
    until = http_date(text)
    if until is None:
        return None
    return min(max((until - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_SECONDS)
