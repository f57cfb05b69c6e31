"""Results as tables, in Markdown: readable in a terminal as it is on a page."""

import statistics
from collections.abc import Callable, Sequence

import attrs

from benchmarks.results import Results


@attrs.frozen
class Measure:
    """How a figure is shown."""

    title: str
    shown: Callable[[float], str]
    has_spread: bool = False


def whole(value: float) -> str:
    """A number without decimals."""
    return f"{value:,.0f}"


def tenths(value: float) -> str:
    """A number with one decimal, where it is small."""
    return f"{value:,.1f}" if value < 100 else whole(value)


def hundredths(value: float) -> str:
    """A number with two decimals."""
    return f"{value:,.2f}"


def megabytes(value: float) -> str:
    """Bytes as MB."""
    return f"{value / 1e6:,.0f} MB"


def kilobytes(value: float) -> str:
    """Bytes as KB."""
    return f"{value / 1e3:,.1f} KB"


MEASURES = {
    "per_second": Measure("a second", whole, has_spread=True),
    "begun_p50": Measure("begun, median ms", tenths),
    "begun_p90": Measure("90 %", tenths),
    "begun_p99": Measure("99 %", tenths, has_spread=True),
    "completed_p50": Measure("completed, median ms", tenths),
    "completed_p99": Measure("99 %", tenths),
    "p50": Measure("median ms", tenths),
    "p90": Measure("90 %", tenths),
    "p99": Measure("99 %", tenths, has_spread=True),
    "worker_cpu": Measure("worker CPU s / 1,000", hundredths),
    "server_cpu": Measure("PostgreSQL CPU s / 1,000", hundredths),
    "web_cpu": Measure("web CPU s / 1,000", hundredths),
    "log_bytes": Measure("log / email", kilobytes),
    "table_bytes": Measure("table / email", kilobytes),
    "dead_rows": Measure("dead rows", whole),
    "last_of_first": Measure("last round / first", hundredths),
    "memory": Measure("memory", megabytes),
}


def table(results: Results, case: str, ratio_of: str = "", ratio_measure: str = "") -> str:
    """The figures of a case: medians over the rounds, with the lowest and highest where the spread
    matters.

    Args:
        ratio_of: the contender that the others are compared with in a further column.
        ratio_measure: the figure that is compared.
    """
    names = results.contenders(case)
    measures = [
        name
        for name in MEASURES
        if any(results.values(case, contender, name) for contender in names)
    ]
    compared = ratio_of if ratio_of in names else ""
    head = ["", *[MEASURES[name].title for name in measures]]
    if compared:
        head.append(f"of {results.titles[compared]}'s")
    rows = []
    for contender in names:
        row = [results.titles[contender]]
        row += [shown(name, results.values(case, contender, name)) for name in measures]
        if compared:
            ratio = results.ratio(case, contender, compared, ratio_measure)
            row.append("-" if ratio is None else f"{ratio:.2f}")
        rows.append(row)
    return markdown(head, rows)


def shown(measure: str, values: Sequence[float]) -> str:
    """The median of a figure's rounds, with their spread where it matters."""
    if not values:
        return "-"
    how = MEASURES[measure]
    median = how.shown(statistics.median(values))
    if how.has_spread and len(values) > 1:
        return f"{median} ({how.shown(min(values))} to {how.shown(max(values))})"
    return median


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned for who reads the source."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join(["-" * (widths[0] + 2), *["-" * (width + 1) + ":" for width in widths[1:]]])
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def print_results(results: Results, compared: dict[str, str]) -> None:
    """Print every case as a table, each contender compared with the first by the figure that is
    named for the case."""
    for name, value in results.machine.items():
        print(f"{name}: {value}")
    print("versions:", ", ".join(f"{name} {value}" for name, value in results.versions.items()))
    for case in results.figures:
        print(f"\n{case}\n")
        print(table(results, case, results.contenders(case)[0], compared.get(case, "")))
    for name, reason in results.left_out.items():
        print(f"\nleft out: {name}: {reason}")
