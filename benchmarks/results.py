"""What a part of the benchmarks found: figures by case, contender and measure, one of each round.

They are kept as JSON, from which tables and the document are made.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@attrs.define
class Results:
    """One run of one part.

    `figures` are by case, contender and measure; the values are those of the rounds.
    """

    part: str
    machine: dict[str, str] = attrs.field(factory=dict)
    titles: dict[str, str] = attrs.field(factory=dict)
    notes: dict[str, str] = attrs.field(factory=dict)
    """What a reader has to know of a contender."""

    versions: dict[str, str] = attrs.field(factory=dict)
    left_out: dict[str, str] = attrs.field(factory=dict)
    """Who did not take part, or not to the end, and why."""

    figures: dict[str, dict[str, dict[str, list[float]]]] = attrs.field(factory=dict)

    def add(self, case: str, contender: str, **measures: float | None) -> None:
        """Add what one round measured; None is what it could not."""
        of_contender = self.figures.setdefault(case, {}).setdefault(contender, {})
        for measure, value in measures.items():
            if value is None:
                continue
            of_contender.setdefault(measure, []).append(value)

    def contenders(self, case: str) -> list[str]:
        """Who was measured in a case."""
        return list(self.figures.get(case, {}))

    def values(self, case: str, contender: str, measure: str) -> list[float]:
        """Those of the rounds; empty where there are none."""
        return self.figures.get(case, {}).get(contender, {}).get(measure, [])

    def median(self, case: str, contender: str, measure: str) -> float | None:
        """The median of the rounds; None where there are none."""
        values = self.values(case, contender, measure)
        return statistics.median(values) if values else None

    def ratio(self, case: str, one: str, other: str, measure: str) -> float | None:
        """How much of the other's figure one has: the median of the rounds' ratios, since a round
        disturbs both alike."""
        pairs = zip(
            self.values(case, one, measure), self.values(case, other, measure), strict=False
        )
        ratios = [a / b for a, b in pairs if b]
        return statistics.median(ratios) if ratios else None

    def save(self, folder: Path) -> Path:
        """Write it into a folder, over an earlier run of the part."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.part}.json"
        path.write_text(json.dumps(attrs.asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path, part: str) -> "Results | None":
        """The last run of a part; None where there is none."""
        path = folder / f"{part}.json"
        if not path.exists():
            return None
        values: dict[str, Any] = json.loads(path.read_text())
        return cls(**values)
