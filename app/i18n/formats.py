"""Numbers and times as they are written in the language that is spoken. English ones stay as they
are everywhere else of Mailroom: 12,345 and 2026-11-03 14:05."""

from datetime import datetime

from app.i18n.languages import ENGLISH, spoken

# Babel is imported where another language is spoken: commands and workers, which speak none, start
# a twentieth of a second sooner without it.


def number(value: float) -> str:
    """A number with its thousands parted."""
    if spoken() == ENGLISH:
        return f"{value:,}"
    from babel.numbers import format_decimal

    return format_decimal(value, locale=spoken(), decimal_quantization=False)


def decimal(value: float, digits: int) -> str:
    """A number with so many digits behind its point."""
    if spoken() == ENGLISH:
        return f"{value:.{digits}f}"
    from babel.numbers import format_decimal

    return format_decimal(value, f"#,##0.{'0' * digits}", locale=spoken())


def moment(at: datetime, *, seconds: bool = False) -> str:
    """A day and its time, in the zone that it has."""
    if spoken() == ENGLISH:
        return at.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    from babel.dates import format_date, format_time

    day = format_date(at, "medium", locale=spoken())
    return f"{day}, {format_time(at, 'medium' if seconds else 'short', locale=spoken())}"
