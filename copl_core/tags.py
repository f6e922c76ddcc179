"""The tags of reasons as columns, for a fit that learns from them.  Numpy only.

A tag is a word or two that a user gives beside a label, such as "shorter".  Here it is a number: a hash that equal
words share.  So what a fit keeps of tags quotes nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np

MOST_TAGS, TAG_LENGTH = 20, 60  # of a label; characters of one


@lru_cache(maxsize=4096)
def tag_key(words: str) -> int:
    """The number of a tag, in 64 bits with a sign; case and spaces do not matter."""
    plain = " ".join(words.split()).casefold()
    return int.from_bytes(sha256(plain.encode()).digest()[:8], "big", signed=True)


@dataclass(frozen=True, slots=True)
class Tags:
    """One row for each tag of a label, in the order of the labels."""

    label: np.ndarray  # (M,) int64, row of the label, ascending
    key: np.ndarray  # (M,) int64, see ``tag_key``

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def of(cls, tags: Iterable[tuple[int, Sequence[str]]]) -> Tags:
        """From (row of a label, its tags); rows ascend.  A tag counts once for a label."""
        keys = [(row, key) for row, words in tags for key in dict.fromkeys(tag_key(one) for one in words)]
        table = np.array(keys, np.int64).reshape(-1, 2)
        return cls(table[:, 0], table[:, 1])

    def take(self, rows: np.ndarray) -> Tags:
        """The tags of the labels ``rows`` (different row numbers, or a mask), which become labels 0, 1, 2, …"""
        own, label = self.found(rows)
        return Tags(label, self.key[own])

    def found(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows here of the tags of the labels ``rows``, in the order of these; the position of their label there)."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        position = np.full(1 + max(rows.max(initial=-1), self.label.max(initial=-1)), -1)
        position[rows] = np.arange(len(rows))
        label = position[self.label]
        own = np.flatnonzero(label >= 0)
        own = own[np.argsort(label[own], kind="stable")]
        return own, label[own]

    def between(self, start: int, end: int) -> Tags:
        """The tags of the labels from ``start`` to below ``end``, which become labels 0, 1, 2, …"""
        first, last = np.searchsorted(self.label, (start, end))
        return Tags(self.label[first:last] - start, self.key[first:last])

    @property
    def n_labels(self) -> int:
        """Labels with a tag."""
        return len(np.unique(self.label))

    @property
    def share(self) -> np.ndarray:
        """(M,) one divided by the number of tags of the same label."""
        return 1 / np.bincount(self.label)[self.label]
