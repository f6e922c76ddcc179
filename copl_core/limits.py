"""How often somebody may try: a bucket of tries for each, which fills again over a minute.  Standard library only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable
from threading import Lock

_ROUNDING = 1e-9  # of a try: a client that waits as long as it was advised is not sent away once more
_MOST_BUCKETS = 10_000  # kept before those that are full again are forgotten


class RateLimiter:
    """Buckets in the memory of one process; safe to share between threads.

    Args:
        clock: seconds, only ever rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # whose → (tries left, time of that)
        self._swept = -math.inf  # when full buckets were last forgotten

    def take(self, whose: Hashable, per_minute: int, cost: int = 1) -> int:
        """Take ``cost`` tries from a bucket; returns 0, or the seconds after which to try again."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            left = self._left(whose, per_minute, now)
            wait = _wait(left, per_minute, cost)
            self._buckets[whose] = (left if wait else max(0.0, left - cost), now)
            return wait

    def wait(self, whose: Hashable, per_minute: int) -> int:
        """The seconds until a try could be taken, 0 if it could now; nothing is taken."""
        with self._lock:
            return _wait(self._left(whose, per_minute, self._clock()), per_minute, 1)

    def clear(self) -> None:
        """Forget all tries."""
        with self._lock:
            self._buckets.clear()

    def _left(self, whose: Hashable, per_minute: int, now: float) -> float:
        left, at = self._buckets.get(whose, (float(per_minute), now))
        return min(per_minute, left + (now - at) * per_minute / 60)

    def _sweep(self, now: float) -> None:
        """A bucket is full a minute after its last try, and then it is as one that was never used."""
        if len(self._buckets) >= _MOST_BUCKETS and now - self._swept >= 1:
            self._buckets = {whose: (left, at) for whose, (left, at) in self._buckets.items() if now - at < 60}
            self._swept = now


def _wait(left: float, per_minute: int, cost: int) -> int:
    if left >= cost - _ROUNDING:
        return 0
    return max(1, math.ceil((min(cost, per_minute) - left) * 60 / per_minute))
