"""Lengths of time, as people say them."""

from datetime import timedelta

from app.i18n.formats import decimal

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def in_words(time: timedelta) -> str:
    """The two largest units of a length of time, such as `3 h 12 min`."""
    seconds = time.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{decimal(seconds, 1)} s"
    left = int(seconds)
    parts: list[str] = []
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))
