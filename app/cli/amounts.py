"""Numbers of the command line that can be counted with."""

import math
from typing import Any

import click

# More of anything is a slip, and infinity is not counted with.
MOST = 10**9


class Amount(click.FloatRange):
    """A number within bounds, both of which it has."""

    def __init__(self, least: float, most: float = MOST) -> None:
        super().__init__(least, most)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Of a text, or of a default.

        Raises:
            click.BadParameter: it is none, or beyond the bounds.
        """
        # Bounds let "not a number" through: it is neither less nor more than anything.
        if math.isnan(number := float(super().convert(value, param, ctx))):
            self.fail(f"{value} is no number.", param, ctx)
        return number
