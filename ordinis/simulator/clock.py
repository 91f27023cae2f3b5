"""The venue's own time: the wall clock, moved as far as somebody likes, or held still.

Held, it shows one moment until it is moved, so that a test decides when a second has passed.
Running, it never shows the same moment twice. It only tells the time: what becomes due is for
`steps`.
"""

import time
from collections.abc import Mapping


class VenueClock:
    """Called, it tells the nanoseconds since 1970, UTC."""

    def __init__(self) -> None:
        self._ahead = 0  # of the wall clock, in nanoseconds
        self._last = 0
        self._held: int | None = None

    def __call__(self) -> int:
        if self._held is not None:
            return self._held
        self._last = max(self._last + 1, time.time_ns() + self._ahead)
        return self._last

    @property
    def held(self) -> bool:
        return self._held is not None

    def hold(self) -> None:
        self._held = self()

    def release(self) -> None:
        """Run on from the moment shown."""
        if self._held is not None:
            moment, self._held = self._held, None
            self.set(moment)

    def set(self, moment: int) -> None:
        """Show another moment, earlier or later; a held clock stays held."""
        if self._held is not None:
            self._held = moment
        else:
            self._ahead, self._last = moment - time.time_ns(), 0

    def dump(self) -> dict[str, int | None]:
        """What a restart needs."""
        return {"held": self._held, "ahead": self._ahead}

    def load(self, stored: Mapping[str, int | None]) -> None:
        self._held, self._ahead, self._last = stored["held"], stored["ahead"] or 0, 0
