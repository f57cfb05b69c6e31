"""The charts of the overview: from numbers to the shapes that its page draws."""

from collections.abc import Sequence

import attrs

from app.jobs.throughput import Throughput

WIDTH, HEIGHT = 600, 120
BAR = 0.8


@attrs.frozen
class Chart:
    """Shapes of one picture, as paths of SVG, by what they show."""

    top: float
    """What stands at the upper edge."""
    paths: dict[str, str]
    width: int = WIDTH
    height: int = HEIGHT


def chart_of_emails(throughput: Throughput) -> Chart:
    """What ended as bars, what came and what was retried as lines."""
    parts = throughput.parts
    ended = [part.completed + part.failed for part in parts]
    accepted, retried = [part.accepted for part in parts], [part.retried for part in parts]
    top = max(*ended, *accepted, *retried, 1)
    return Chart(
        top,
        {
            "completed": _bars([part.completed for part in parts], [0] * len(parts), top),
            "failed": _bars([part.failed for part in parts], [p.completed for p in parts], top),
            "accepted": _line(accepted, top),
            "retried": _line(retried, top) if any(retried) else "",
        },
    )


def chart_of_line(name: str, values: Sequence[int | None]) -> Chart:
    """One line, with gaps where nobody looked."""
    top = max((value for value in values if value is not None), default=0)
    return Chart(top, {name: _line(values, top or 1)})


def _bars(values: Sequence[int], bases: Sequence[int], top: float) -> str:
    step = WIDTH / len(values)
    return "".join(
        f"M{index * step:.1f} {_y(base, top):.1f}"
        f"h{step * BAR:.1f}V{_y(base + value, top):.1f}h-{step * BAR:.1f}z"
        for index, (value, base) in enumerate(zip(values, bases, strict=True))
        if value
    )


def _line(values: Sequence[int | None], top: float) -> str:
    step = WIDTH / len(values)
    path, is_drawing = "", False
    for index, value in enumerate(values):
        if value is not None:
            x = (index + BAR / 2) * step
            # A point between two gaps is a line of no length, which round ends make visible.
            path += f"{'L' if is_drawing else 'M'}{x:.1f} {_y(value, top):.1f}"
            path += "" if is_drawing else "h0"
        is_drawing = value is not None
    return path


def _y(value: float, top: float) -> float:
    return HEIGHT - value * HEIGHT / top
