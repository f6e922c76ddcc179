"""Ids travel with rows: finding the row of an id in a table, without trusting positions."""

from __future__ import annotations

import numpy as np

ABSENT = -1


def rows_of(ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Row of each id (any shape) in ``table`` (n,), which need not be sorted; −1 where it is absent."""
    ids = np.asarray(ids, np.int64)
    if not len(table):
        return np.full(ids.shape, ABSENT, np.int64)
    order = np.argsort(table, kind="stable")
    place = np.minimum(np.searchsorted(table, ids, sorter=order), len(table) - 1)
    rows = order[place]
    return np.where(table[rows] == ids, rows, ABSENT)
