"""Growing pauses: how whoever waits for something that is away asks ever more seldom."""


class GrowingPause:
    """A pause that doubles each time, up to a longest one.

    Args:
        first_seconds: the first pause.
        longest_seconds: what no pause exceeds.

    `is_first` tells that no pause was taken yet, or none since the last `reset`.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._next_seconds = first_seconds
        self.is_first = True

    def next_seconds(self) -> float:
        """How long to pause now."""
        self.is_first = False
        pause = self._next_seconds
        self._next_seconds = min(2 * pause, self._longest_seconds)
        return pause

    def reset(self) -> None:
        """Begin anew: what was waited for is back."""
        self.is_first = True
        self._next_seconds = self._first_seconds
