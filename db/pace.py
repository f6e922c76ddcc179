"""Long writing in short transactions: how much goes into each follows the clock, and others write in between.

SQLite has one writer.  How long a row takes is the machine's, the disk's and the indexes' affair, and changes on the
way, so no number of rows is right: the time of one transaction sets the size of the next.  Between two of them there is
a gap, in which who waits for the writer finds it free (``db.engine`` looks every two milliseconds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import ceil
from time import monotonic, sleep
from typing import TypeVar

from sqlalchemy import Connection

HOLD_SECONDS = 0.02  # the aim for one transaction
GAP_SECONDS = 0.005  # between two of them, at least
_WORK = 1 / 4  # of the aim, for the work before the commit, however long a slow disk takes for the commit
_MORE = 2.0  # times as many rows as before, at most
_HEAVY = 20_000  # characters that take as long as a row without them
_GAP = 1 / 4  # of a transaction's time, for the gap after it
T = TypeVar("T")


def weighing(rows: Iterator[T], n: float, length: Callable[[T], int]) -> list[T]:
    """The next rows, one at least, that take as long as ``n`` short ones; ``length``: the characters of one."""
    part: list[T] = []
    for row in rows:
        part.append(row)
        n -= 1 + length(row) / _HEAVY
        if n <= 0:
            break
    return part


class Pace:
    """``n``: how many rows the next transaction takes.

    Args:
        first: rows of the first one, of which nothing is known yet.
        clock, pause: of time and of waiting, in seconds.
    """

    def __init__(
        self,
        *,
        first: int = 50,
        fewest: int = 1,
        most: int = 2000,
        clock: Callable[[], float] = monotonic,
        pause: Callable[[float], object] = sleep,
    ) -> None:
        self.n = first
        self._fewest, self.most, self._clock, self._pause = fewest, most, clock, pause
        self._free_at = -1.0

    @contextmanager
    def step(self, transaction: AbstractContextManager[Connection]) -> Iterator[Connection]:
        """One transaction, after the gap; its time, from having the writer to having given it back, sets ``n``."""
        self._pause(max(0.0, self._free_at - self._clock()))
        with transaction as connection:
            start = self._clock()
            yield connection
            done = self._clock()
        end = self._clock()
        self._free_at = end + max(GAP_SECONDS, (end - start) * _GAP)
        self._follow(done - start, end - done)

    def _follow(self, work: float, commit: float) -> None:
        times = max(HOLD_SECONDS - commit, HOLD_SECONDS * _WORK) / max(work, 1e-6)
        self.n = max(self._fewest, min(self.most, ceil(self.n * min(times, _MORE))))
