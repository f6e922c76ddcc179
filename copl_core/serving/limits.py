"""How often each token may ask: a bucket of requests per token, which fills again over a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock

_ROUNDING = 1e-9  # of a request: a client that waits as long as it was advised is not sent away once more


class RateLimiter:
    """Buckets in the memory of one server; safe to share between threads.

    Args:
        clock: seconds, only ever rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._buckets: dict[int, tuple[float, float]] = {}  # token id → (requests left, time of that)

    def take(self, token_id: int, per_minute: int, cost: int = 1) -> int:
        """Take ``cost`` requests from a token's bucket; returns 0, or the seconds after which to try again."""
        with self._lock:
            now = self._clock()
            left, at = self._buckets.get(token_id, (float(per_minute), now))
            left = min(per_minute, left + (now - at) * per_minute / 60)
            if left >= cost - _ROUNDING:
                self._buckets[token_id] = (max(0.0, left - cost), now)
                return 0
            self._buckets[token_id] = (left, now)
            return max(1, math.ceil((min(cost, per_minute) - left) * 60 / per_minute))
