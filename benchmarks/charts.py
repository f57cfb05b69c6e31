"""Charts as SVG files, readable on a light and on a dark page, made of text alone."""

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

import attrs

WIDTH = 860
LABEL_WIDTH = 340
VALUE_WIDTH = 130
BAR, GAP = 18, 10
TOP = 46
OURS, OTHERS, SPREAD, INK = "#2563eb", "#94a3b8", "#dc2626", "#64748b"
LINES = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#475569", "#0891b2")
PLOT_HEIGHT = 280


@attrs.frozen
class Bar:
    """The rounds of one contender."""

    label: str
    middle: float
    lowest: float
    highest: float
    is_ours: bool


@attrs.frozen
class Line:
    """A contender's way over the points of the horizontal axis."""

    label: str
    values: Sequence[float | None]


def bars(title: str, shown: Callable[[float], str], data: Sequence[Bar]) -> str:
    """Medians as bars, the lowest and the highest round as a line on each; longer is more."""
    most = max((bar.highest for bar in data), default=1.0) or 1.0
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    parts = []
    for number, bar in enumerate(data):
        y = TOP + number * (BAR + GAP)
        middle, lowest, highest = (
            LABEL_WIDTH + room * value / most for value in (bar.middle, bar.lowest, bar.highest)
        )
        parts += [
            _text(LABEL_WIDTH - 10, y + 13, bar.label, anchor="end"),
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{max(1, middle - LABEL_WIDTH):.1f}"'
            f' height="{BAR}" fill="{OURS if bar.is_ours else OTHERS}"/>',
            f'<path d="M{lowest:.1f} {y + BAR / 2}H{highest:.1f}" stroke="{SPREAD}"/>',
            _text(max(middle, highest) + 8, y + 13, shown(bar.middle)),
        ]
    return _picture(title, TOP + len(data) * (BAR + GAP) + 6, parts)


def lines(
    title: str,
    points: Sequence[str],
    shown: Callable[[float], str],
    data: Sequence[Line],
    *,
    logarithmic: bool = False,
) -> str:
    """A line a contender over named points; from 0 up, or over powers of ten."""
    values = [value for line in data for value in line.values if value is not None and value > 0]
    most, least = max(values, default=1.0), min(values, default=1.0)
    left, right, top = 70, 20, TOP
    low = math.floor(math.log10(least)) if logarithmic else 0.0
    high = max(math.ceil(math.log10(most)), low + 1) if logarithmic else most

    def x_of(number: int) -> float:
        steps = max(1, len(points) - 1)
        return left + (WIDTH - left - right) * number / steps

    def y_of(value: float) -> float:
        height = math.log10(value) if logarithmic else value
        return top + PLOT_HEIGHT * (1 - (height - low) / ((high - low) or 1))

    marks = (
        [10.0**power for power in range(int(low), int(high) + 1)]
        if logarithmic
        else [most * step / 4 for step in range(5)]
    )
    parts = []
    for mark in marks:
        y = y_of(mark)
        parts.append(f'<path d="M{left} {y:.1f}H{WIDTH - right}" stroke="{INK}" opacity="0.25"/>')
        parts.append(_text(left - 8, y + 4, shown(mark), anchor="end"))
    every = max(1, len(points) // 12)
    for number, point in enumerate(points):
        if number % every == 0:
            parts.append(_text(x_of(number), top + PLOT_HEIGHT + 20, point, anchor="middle"))
    for number, line in enumerate(data):
        colour = LINES[number % len(LINES)]
        places = [
            (x_of(place), y_of(value))
            for place, value in enumerate(line.values)
            if value is not None and value > 0
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + PLOT_HEIGHT + 44 + number * 20
        parts.append(f'<path d="M{left} {y - 4}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(left + 32, y, line.label))
    return _picture(title, top + PLOT_HEIGHT + 54 + len(data) * 20, parts)


def _picture(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        f' width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}"'
        ' font-family="system-ui, sans-serif" font-size="13">'
    )
    name = (
        f'<text x="8" y="24" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>'
    )
    return "\n".join([head, name, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
    )
