"""What the lint has to say of a text, and where."""

from bisect import bisect_right
from enum import StrEnum
from itertools import accumulate

import attrs

MOST_FINDINGS = 200


class Weight(StrEnum):
    """What a finding means."""

    WRONG = "wrong"
    REMARK = "remark"


@attrs.frozen(order=True)
class Finding:
    """One thing, and its place; lines and columns begin at 1."""

    line: int
    column: int
    code: str
    """Its kind, for programs, such as `missing-comma`."""

    message: str
    right: str | None = None
    """The text that would be right, where it can be told."""

    weight: Weight = Weight.WRONG


@attrs.frozen
class Broken:
    """A ticket that a template does not survive."""

    ticket: str
    why: str
    rendered: str
    """What would be sent, or its part round the place where it breaks."""


@attrs.frozen
class Report:
    """All that was found of a text."""

    kind: str
    """`template`, `payload` or `event`."""

    findings: tuple[Finding, ...]
    broken: Broken | None = None

    @property
    def is_right(self) -> bool:
        """Whether there is nothing but remarks."""
        return all(finding.weight is Weight.REMARK for finding in self.findings)


class Findings:
    """Collects findings of a text by their offsets."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *accumulate(len(line) for line in text.splitlines(keepends=True))]
        self._found: dict[Finding, None] = {}

    def add(
        self,
        offset: int,
        code: str,
        message: str,
        right: str | None = None,
        *,
        weight: Weight = Weight.WRONG,
    ) -> None:
        """Note one; of more than anybody reads the rest is left out."""
        if len(self._found) >= MOST_FINDINGS:
            return
        line = self.line_of(offset)
        column = offset - self._starts[line - 1] + 1
        self._found[Finding(line, column, code, message, right, weight)] = None

    def remark(self, offset: int, code: str, message: str, right: str | None = None) -> None:
        """Note what is not wrong."""
        self.add(offset, code, message, right, weight=Weight.REMARK)

    def line_of(self, offset: int) -> int:
        """The line of an offset, from 1."""
        return max(1, min(bisect_right(self._starts, offset), max(1, len(self._starts) - 1)))

    def has(self, code: str) -> bool:
        """Whether there is one of a kind."""
        return any(finding.code == code for finding in self._found)

    @property
    def is_right(self) -> bool:
        """Whether there is nothing but remarks."""
        return all(finding.weight is Weight.REMARK for finding in self._found)

    def all(self) -> tuple[Finding, ...]:
        """All of them, by their places."""
        return tuple(sorted(self._found, key=lambda one: (one.line, one.column)))
