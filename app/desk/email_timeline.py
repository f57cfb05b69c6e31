"""The way of an email as a picture: a mark for each thing that happened, and between two of them a
line whose length tells how much time went by."""

import math
from collections.abc import Sequence
from datetime import timedelta

import attrs

from app.jobs.story_events import Event

# Pixels. The length grows with the logarithm of the time, or a night would hide the seconds.
SHORTEST, LONGEST, PER_TENFOLD = 8, 96, 14


@attrs.frozen
class Step:
    """Something that happened, and the time since what was before it."""

    event: Event
    since: timedelta
    length: int
    """Of the line from what was before, in pixels."""


def steps_of(events: Sequence[Event]) -> list[Step]:
    """The steps of a story."""
    before = [events[0], *events] if events else []
    return [
        Step(event, event.at - last.at, _length(event.at - last.at))
        for last, event in zip(before, events, strict=False)
    ]


def _length(time: timedelta) -> int:
    seconds = max(time.total_seconds(), 0.0)
    return min(LONGEST, SHORTEST + round(PER_TENFOLD * math.log10(1 + seconds)))
