"""This machine's clock beside Zendesk's: emails are matched with comments by their times, too."""

from datetime import timedelta

# A Date header has whole seconds, and an answer takes some on its way.
MOST_DIFFERENCE = timedelta(seconds=60)


def skew(clock_ahead: timedelta | None) -> str | None:
    """What is wrong with the clock, and how to mend it; None where nothing is, or is known.

    Args:
        clock_ahead: by how much this machine's clock is before Zendesk's.
    """
    if clock_ahead is None or abs(clock_ahead) <= MOST_DIFFERENCE:
        return None
    seconds = int(abs(clock_ahead).total_seconds())
    said = "ahead of" if clock_ahead > timedelta(0) else "behind"
    return f"this machine's clock is {seconds} seconds {said} Zendesk's: let NTP set it"


def allowed(clock_ahead: timedelta | None) -> timedelta:
    """By how much Zendesk's times are moved to be compared with ours: by nothing where both agree,
    as far as that can be told."""
    return clock_ahead if clock_ahead is not None and skew(clock_ahead) else timedelta(0)
